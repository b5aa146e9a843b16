"""The finished evaluations in a folder of attack results, for the bound of an audit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.runs.attack_results import require_identity
from spikeguard.storage.digests import UNVERIFIED

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.attacks.threat import Threat
    from spikeguard.data.images import ImageSet
    from spikeguard.evaluation.result import Evaluation

__all__ = ["stored_evaluations"]


def stored_evaluations(
    folder: Path,
    threat: Threat,
    *,
    checkpoint: str = "best",
    model: nn.Module | None = None,
    images: ImageSet | None = None,
) -> dict[str, Evaluation]:
    """Return the finished evaluations at a threat set, by the names of their files.

    Results of the suite "snn" before it was a converging search are marked in their names, and so
    are results of older versions, which do not say what they were made with.

    Args:
        folder: Folder of the results of one model; it may be missing.
        threat: Norm and radius of the wanted results.
        checkpoint: The attacked checkpoint.
        model: The classifier and its images now; results of other weights or images are rejected.
        images: See ``model``.

    Raises:
        ValueError: If a file is damaged, or of other weights or images: one line that names it.
    """
    from spikeguard.attacks.threat import peak_of
    from spikeguard.evaluation.identity import identity_of
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.evaluation.result_files import load_worst
    from spikeguard.evaluation.search_record import BEFORE, is_of_suite_before

    found = {}
    for card in sorted(folder.glob("*.json")):
        stem = card.with_name(card.name.removesuffix(".json"))
        evaluation = Evaluation.load(stem)
        attacked = evaluation.threat
        same = attacked["norm"] == threat.norm and math.isclose(attacked["eps"], threat.eps)
        same = same and float(attacked.get("peak", 1.0)) == peak_of(threat)
        content = json.loads(card.read_text(encoding="utf-8"))
        if same and content.get("checkpoint", "best") == checkpoint:
            if model is not None and images is not None:
                now = identity_of(model, images, evaluation.samples)
                require_identity(evaluation.identity, now, card)
            if evaluation.stochastic:  # its worst inputs are scored again
                evaluation = replace(evaluation, worst=load_worst(stem))
            mark = BEFORE if is_of_suite_before(content) else ""
            mark += UNVERIFIED if evaluation.identity is None else ""
            found[stem.name + mark] = evaluation
    return found

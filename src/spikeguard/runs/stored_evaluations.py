"""The finished evaluations in a folder of attack results, for the bound of an audit."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikeguard.attacks.threat import Threat
    from spikeguard.evaluation.result import Evaluation

__all__ = ["stored_evaluations"]


def stored_evaluations(
    folder: Path, threat: Threat, *, checkpoint: str = "best"
) -> dict[str, Evaluation]:
    """Return the finished evaluations at a threat set, by the names of their files.

    Results of the suite "snn" before it was a converging search are marked in their names.

    Args:
        folder: Folder of the results of one model; it may be missing.
        threat: Norm and radius of the wanted results.
        checkpoint: The attacked checkpoint.

    Raises:
        ValueError: If a file is damaged: one line that names it.
    """
    from spikeguard.evaluation.result import Evaluation, load_worst
    from spikeguard.evaluation.search_record import BEFORE, is_of_suite_before

    found = {}
    for card in sorted(folder.glob("*.json")):
        stem = card.with_name(card.name.removesuffix(".json"))
        evaluation = Evaluation.load(stem)
        attacked = evaluation.threat
        same = attacked["norm"] == threat.norm and math.isclose(attacked["eps"], threat.eps)
        content = json.loads(card.read_text(encoding="utf-8"))
        if same and content.get("checkpoint", "best") == checkpoint:
            if evaluation.stochastic:  # its worst inputs are scored again
                evaluation = replace(evaluation, worst=load_worst(stem))
            found[stem.name + (BEFORE if is_of_suite_before(content) else "")] = evaluation
    return found

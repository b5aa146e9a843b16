"""Attack settings chosen on validation images; the score of each candidate is stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import eps_text
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import CHECKSUM, IDENTITY, UNVERIFIED, is_sealed, sealed

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.attacks.base import Attack
    from spikeguard.attacks.gradients.base import Gradient
    from spikeguard.attacks.threat import Threat
    from spikeguard.attacks.tuning import Tuned
    from spikeguard.auditing.subject import Provenance
    from spikeguard.data.images import ImageSet
    from spikeguard.system.progress import ProgressCallback

__all__ = ["FOLDER", "IMAGES", "choose_attack", "load_or_tune", "tuned_from_json"]

FOLDER = "tuned"  # folder of the scores, among the attack results
IMAGES = 128  # largest number of validation images for each candidate


def load_or_tune(
    model: nn.Module,
    validation: ImageSet,
    attacks: Mapping[str, Attack],
    *,
    folder: Path,
    seed: int,
    mark: str = "",
    batch_size: int = 128,
    check: bool = True,
    progress: ProgressCallback | None = None,
    announce: Callable[[str], None] | None = None,
) -> dict[str, Tuned]:
    """Choose HART's gamma and ASSG's A for a suite on validation images.

    Each candidate's score is stored as soon as it is known: an interrupted choice continues, a
    finished one is loaded.

    Args:
        model: The classifier; left unchanged.
        validation: Images that are not scored at the end; the first ``IMAGES`` are used.
        attacks: The suite; see :func:`spikeguard.attacks.tuning.tunable`.
        folder: Holds the scores of this model only.
        seed: Names the random streams.
        mark: Names the checkpoint, where the model has several.
        batch_size: Images at once; results do not depend on it.
        check: Whether to check the model before the first score is stored; see ``evaluate``.
        progress: Callback ``(done, total, what)``, or None.
        announce: Called with a line on the cost of the trials before they start.

    Returns:
        The chosen setting for each kind of gradient that has one.

    Raises:
        ConfigError: If a file is damaged, or was made with other candidates, images or seed.
        ValueError: If the model fails the check.
    """
    from spikeguard.attacks.base import cost, describe
    from spikeguard.attacks.tuning import CANDIDATES, Tuned, tunable, tune
    from spikeguard.evaluation.identity import identity_of
    from spikeguard.preflight.quick import SAMPLES, quick_check, warn

    samples = min(IMAGES, len(validation))
    identity = identity_of(model, validation, samples)
    found = {}
    for kind, trial in tunable(attacks).items():
        candidates = CANDIDATES[kind]
        tried = trial(next(iter(candidates.values())))
        card = {"split": "validation", "samples": samples, "seed": seed, "trial": describe(tried)}
        file = folder / _name(kind, tried.threat, mark, card)
        scores = _read(file, card, candidates, identity, announce) if file.exists() else {}
        missing = [name for name in candidates if name not in scores]
        if announce is not None and missing:
            each = f"{cost(tried):,.0f} gradients each"
            announce(f"{len(missing)} settings of {kind} first, on {samples} images, {each}")
        if check and missing and not scores:
            warn(quick_check(model, *validation.batch(slice(SAMPLES)), [tried]))
        for name in missing:
            if progress is not None:
                progress(len(scores), len(candidates), f"{kind} {name} on validation images")
            one = {name: candidates[name]}
            options = {"limit": samples, "seed": seed, "batch_size": batch_size}
            scores |= tune(model, validation, one, trial, **options).scores
            write_json(file, sealed({**card, "scores": scores, IDENTITY: identity}))
        if progress is not None and missing:
            progress(len(scores), len(candidates), f"{kind} chosen")
        best = min(candidates, key=lambda name: scores[name])
        scores = {name: scores[name] for name in candidates}
        found[kind] = Tuned(best, candidates[best], scores, samples)
    return found


def choose_attack(
    attack: Attack | None, model: nn.Module, validation: ImageSet, **options: Any
) -> tuple[Attack, Provenance]:
    """Return an attack with the chosen setting of its gradient, and the provenance of the choice.

    Args:
        attack: The attack.
        model: The classifier.
        validation: Images that are not scored at the end.
        **options: As for :func:`load_or_tune`.

    Raises:
        ConfigError: If there is no attack or its gradient has no setting to choose; else as for
            :func:`load_or_tune`.
    """
    from spikeguard.attacks.tuning import CANDIDATES, adjusted
    from spikeguard.auditing.subject import Provenance

    chosen = {} if attack is None else load_or_tune(model, validation, {"": attack}, **options)
    if attack is None or not chosen:
        raise ConfigError(
            f"--tune: chooses the setting of --attack where it uses {' or '.join(CANDIDATES)}; "
            "name one that does, such as apgd-ce/hart."
        )
    (found,) = chosen.values()
    other = adjusted({"": attack}, {kind: each.gradient for kind, each in chosen.items()})
    return other[""], Provenance("validation", found.trials)


def tuned_from_json(chosen: Mapping[str, Any], where: Path) -> dict[str, Gradient]:
    """Return the gradients that a stored result names (see :func:`attacks.tuning.tuned_to_json`).

    Raises:
        ConfigError: If there are no such candidates.
    """
    from spikeguard.attacks.tuning import CANDIDATES

    try:
        return {kind: CANDIDATES[kind][found["setting"]] for kind, found in chosen.items()}
    except (LookupError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{where}.json was made with a setting that is no candidate now ({error}); move it "
            "away and run again."
        ) from error


def _name(kind: str, threat: Threat, mark: str, card: Mapping[str, Any]) -> str:
    """Name the file of a choice by gradient, threat set and a digest of everything else."""
    digest = hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()[:8]
    parts = [kind.lower(), threat.norm.replace(" ", "_"), eps_text(threat.eps).replace("/", "_")]
    return "-".join([*parts, *([mark] if mark else []), digest]) + ".json"


def _read(
    file: Path,
    card: Mapping[str, Any],
    candidates: Mapping[str, Any],
    identity: Mapping[str, str],
    announce: Callable[[str], None] | None,
) -> dict[str, float]:
    """Read the stored scores; reject those of another choice, network or images."""
    from spikeguard.evaluation.identity import identity_difference

    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        is_sealed(found)
        scores = {str(name): float(score) for name, score in found.pop("scores").items()}
        stored = found.pop(IDENTITY, None)
        found.pop(CHECKSUM, None)
        other = None if stored is None else identity_difference(stored, identity)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: damaged ({error}); remove it and run again.") from error
    if other is not None:
        raise ConfigError(f"{file} is of {other}; move it away and run again.")
    if found != json.loads(json.dumps(card)) or not scores.keys() <= candidates.keys():
        raise ConfigError(f"{file} was made with other trials; move it away and run again.")
    if stored is None and announce is not None:
        announce(f"{file}{UNVERIFIED}")
    return scores

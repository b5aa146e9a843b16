"""Analyses of a run or a foreign model: each is measured once, stored, and loaded from then on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from spikeguard.config.analysis_lines import analysis_name, build_analysis
from spikeguard.config.attack_lines import build_attack
from spikeguard.config.plugins import NO_PLUGINS, Plugins
from spikeguard.config.schema import eps_text
from spikeguard.runs.attack_results import require_identity
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.run_folder import ANALYSIS

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.analysis.base import Analysis
    from spikeguard.analysis.measurement import Measurement
    from spikeguard.data.images import ImageSet
    from spikeguard.runs.run import Run
    from spikeguard.system.progress import ProgressCallback

__all__ = ["DEFAULT_ATTACK", "Subject", "analyse_once", "plan_analyses"]

DEFAULT_ATTACK = "pgd7"
_STEPS = 10_000  # of the progress, for one analysis


@dataclass(frozen=True)
class Subject:
    """What is analysed.

    Attributes:
        path: Folder of the run or of the foreign model's results.
        model: The network.
        images: Test images.
        eps: Radius of the attack's threat set.
        norm: Its norm.
        seed: Seed of all random numbers.
        plugins: Packages from which parts may be imported.
    """

    path: Path
    model: nn.Module
    images: ImageSet
    eps: float
    norm: str
    seed: int
    plugins: Plugins = NO_PLUGINS

    @classmethod
    def of_run(
        cls, run: Run, *, eps: float | None = None, norm: str | None = None, seed: int | None = None
    ) -> Subject:
        """Return a run on its test images; radius, norm and seed of its recipe where None."""
        plan, images = run.recipe.evaluate, run.data.test
        return cls(
            run.path,
            run.model,
            images,
            max(plan.eps) if eps is None else eps,
            norm or plan.norm,
            run.recipe.seed if seed is None else seed,
            run.recipe.plugins,
        )


def plan_analyses(
    subject: Subject, lines: Sequence[str], *, attack: str, limit: int | None
) -> dict[str, Analysis]:
    """Return the analyses of lines, by the path of their results, without running anything.

    Raises:
        ConfigError: If a line, the attack or its threat set is rejected.
    """
    built = build_attack(
        attack, eps=subject.eps, norm=subject.norm, eot=_eot(subject), plugins=subject.plugins
    )
    (used,) = built.values()
    words = attack.replace(" ", "_").replace("/", "_").replace(":", ".")
    text = f"{words}-{subject.norm.replace(' ', '_')}-{eps_text(subject.eps).replace('/', '_')}"
    return {
        analysis_name(line, text): build_analysis(line, attack=used, limit=limit) for line in lines
    }


def _eot(subject: Subject) -> int:
    from spikeguard.attacks.model_access import DEFAULT_EOT, is_stochastic

    return DEFAULT_EOT if is_stochastic(subject.model) else 1


def analyse_once(
    subject: Subject,
    analyses: Mapping[str, Analysis],
    *,
    progress: ProgressCallback | None = None,
    announce: Callable[[str], None] | None = None,
) -> dict[str, Measurement]:
    """Measure every analysis that is not stored, store it, and return all by their names.

    Analyses that do not apply to the network are skipped and left out.

    A stored result of the same settings is loaded; one of other settings of the analysis has
    another name or is measured again. A killed command loses at most the analysis that ran.

    Args:
        subject: What is analysed.
        analyses: See :func:`plan_analyses`.
        progress: Callback ``(done, total, what)``, or None.
        announce: Called with lines of text: the time before the start.

    Raises:
        FolderLocked: If another process writes to the folder.
        ValueError: If a stored result is damaged, or of other weights or images, or if the folder
            cannot be written and a result is missing.
    """
    from spikeguard.analysis.base import NotApplicable, settings_of
    from spikeguard.analysis.measurement import Measurement
    from spikeguard.evaluation.identity import identity_of

    folder = subject.path / ANALYSIS
    identity = identity_of(subject.model, subject.images)
    with locked(subject.path, if_writable=True):
        found: dict[str, Measurement] = {}
        for name, analysis in analyses.items():
            file = folder / f"{name}.npz"
            if file.exists():
                stored = Measurement.load(file)
                require_identity(stored.identity, identity, file)
                if stored.settings == json.loads(json.dumps(settings_of(analysis, subject.seed))):
                    found[name] = stored
        missing = {name: each for name, each in analyses.items() if name not in found}
        if missing:
            _require_writable(folder)
        if missing and announce is not None:
            announce(_estimate(subject, missing))
        for place, (name, analysis) in enumerate(missing.items()):
            try:
                measured = analysis(
                    subject.model,
                    subject.images,
                    seed=subject.seed,
                    progress=_part(progress, place, len(missing), name),
                )
            except NotApplicable as error:
                if announce is not None:
                    announce(f"{name} skipped: {error}")
                continue
            measured.save(folder / f"{name}.npz", identity=identity)
            found[name] = Measurement.load(folder / f"{name}.npz")
            if progress is not None:
                progress(_STEPS * (place + 1), _STEPS * len(missing), name)
        return {name: found[name] for name in analyses if name in found}


def _require_writable(folder: Path) -> None:
    """Reject a folder that takes no file, before anything is measured."""
    place = folder if folder.exists() else folder.parent
    try:
        with NamedTemporaryFile(dir=place, prefix=".", suffix=".tmp"):
            pass
    except OSError as error:
        raise ValueError(
            f"{place}: results cannot be written ({error.strerror}); analyse a copy of the run."
        ) from error


def _part(
    progress: ProgressCallback | None, place: int, parts: int, name: str
) -> ProgressCallback | None:
    """Return the progress of one part of a whole."""
    if progress is None:
        return None
    progress(_STEPS * place, _STEPS * parts, name)

    def update(done: int, total: int, what: str) -> None:
        inside = _STEPS * place + _STEPS * done // max(1, total)
        progress(inside, _STEPS * parts, f"{name}, {what}" if what else name)

    return update


def _estimate(subject: Subject, analyses: Mapping[str, Analysis]) -> str:
    """Return the expected time of analyses as text, from one timed gradient."""
    from spikeguard.attacks.base import FORWARD, AttackError
    from spikeguard.attacks.timing import gradient_seconds
    from spikeguard.system.durations import duration

    images, T = subject.images, int(getattr(subject.model, "T", 1))
    x, y = images.batch(slice(min(len(images), 64)))
    try:
        one = gradient_seconds(subject.model, x, y) / len(x)
    except AttackError:  # the analysis reports it
        return f"{len(analyses)} analyses; their time is unknown"
    seconds = {}
    for name, analysis in analyses.items():
        limit = getattr(analysis, "limit", None)
        passes = analysis.passes(len(images) if limit is None else min(limit, len(images)), T)
        seconds[name] = one * (passes.gradients + FORWARD * passes.forward)
    whole = sum(seconds.values())
    if not math.isfinite(whole):
        return f"{len(analyses)} analyses; the time of one is unknown"
    longest = max(seconds, key=seconds.__getitem__)
    parts = f", {longest} {duration(seconds[longest])} of it" if len(seconds) > 1 else ""
    noun = "analysis" if len(seconds) == 1 else "analyses"
    return f"{len(seconds)} {noun}, about {duration(whole)}{parts}"

"""Attack results in a folder: each is computed once and loaded from then on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import NO_PLUGINS, Plugins
from spikeguard.config.schema import EvaluateSection
from spikeguard.runs.attack_job import AttackJob, planned
from spikeguard.runs.result_names import attack_name, checkpoint_tag
from spikeguard.runs.stored_attack import card_of, require_identity
from spikeguard.storage.folder_lock import locked

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.data.images import Splits
    from spikeguard.data.own import EvaluationImages
    from spikeguard.evaluation.parallel import Reload
    from spikeguard.evaluation.rescoring import Rescored
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.system.progress import ProgressCallback

__all__ = ["attack_name", "checkpoint_tag", "evaluate_once", "require_identity", "rescore_once"]


def evaluate_once(
    model: nn.Module,
    data: Splits | EvaluationImages,
    suite: str,
    *,
    eps: float,
    plan: EvaluateSection,
    seed: int,
    folder: Path,
    jobs: int = 1,
    reload: Reload | None = None,
    plugins: Plugins = NO_PLUGINS,
    check: bool = True,
    progress: ProgressCallback | None = None,
    announce: Callable[[str], None] | None = None,
) -> Evaluation:
    """Attack a model and store the result in a folder, or load it if it is stored.

    An interrupted evaluation continues where it stopped.

    Args:
        model: The classifier.
        data: Its test images are attacked.
        suite: Name of an attack suite, an attack line, or ``package.module:Attack``.
        eps: Radius of the threat set.
        plan: Norm, limit, draws and the other settings of a recipe's evaluate section.
        seed: Names the random streams, unless the plan has a seed of its own.
        folder: Holds the results of this model only.
        jobs: Number of processes of one thread each; 1 runs everything in this process.
        reload: Returns the model and its test images in another process; needed for jobs > 1.
        plugins: Packages from which an attack may be imported.
        check: Whether to check the model before a new evaluation; see ``evaluate``.
        progress: Callback ``(done, total, what)``, or None.
        announce: Called with lines of text: the cost before the attacks start, the attacks left
            out, the settings chosen.

    Raises:
        FolderLocked: If another process writes to the run folder.
        ValueError: If the suite or the radius is rejected, the model fails the check, or a stored
            result is damaged or was made with other settings, weights or images.
    """
    from spikeguard.evaluation.checked_plan import checked_plan
    from spikeguard.evaluation.parallel import run_shards
    from spikeguard.evaluation.plan import plan_evaluation

    if jobs < 1:
        raise ConfigError(f"jobs counts processes, >= 1, got {jobs}.")
    job = AttackJob.of(
        model, data, suite, eps=eps, plan=plan, seed=seed, folder=folder, plugins=plugins
    )
    with locked(job.run_folder, if_writable=job.is_stored):
        if job.is_stored:
            return job.load(announce)
        ready = job.prepare(jobs=jobs, check=check, progress=progress, announce=announce)
        attacks, options = ready.attacks, ready.options
        if jobs > 1 and reload is not None:
            planned = checked_plan if check else plan_evaluation
            shards = planned(model, data.test, attacks, options, jobs=jobs)
            run_shards(shards, reload, attacks, options, jobs, progress)
            progress, check = None, False  # done
        return ready.finish(check=check, progress=progress)


def rescore_once(
    model: nn.Module,
    data: Splits | EvaluationImages,
    suite: str,
    *,
    eps: float,
    plan: EvaluateSection,
    folder: Path,
    plugins: Plugins = NO_PLUGINS,
) -> Rescored:
    """Score the stored worst-case inputs of a finished attack again; see :func:`evaluate_once`.

    Raises:
        ValueError: If there is no such result, or its files are damaged or of other images.
        ThreatViolation: If an input is outside the threat set.
    """
    from spikeguard.evaluation.rescoring import rescore

    plan, _, _ = planned(model, data, suite, eps, plan, plugins)
    stem = folder / attack_name(suite, eps, plan, plugins)
    if not card_of(stem).exists():
        raise ConfigError(f"{stem}.json: no such result; attack first, without --rescore.")
    return rescore(model, data.test, stem)

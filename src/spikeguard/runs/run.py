"""A trained run, loaded back from its folder: here, or by a fresh process that scores again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.auditing.auditor import audit, reported
from spikeguard.config.builder import build_model, load_data
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import EvaluateSection, Recipe, load_recipe
from spikeguard.runs.attack_results import Update, checkpoint_tag, evaluate_once
from spikeguard.runs.fresh_process import rescored
from spikeguard.runs.tuned_settings import FOLDER, choose_attack
from spikeguard.storage.run_folder import ATTACKS, AUDIT, CHECKPOINTS, MEMBRANE, RECIPE, RESULT

if TYPE_CHECKING:
    from spikeguard.analysis.membrane import MembraneHistogram
    from spikeguard.auditing.findings import Verdict
    from spikeguard.auditing.subject import Budget
    from spikeguard.data.images import ImageSet, Splits
    from spikeguard.evaluation.parallel import Reload
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.models.snn import SNN
    from spikeguard.neurons.surrogate import Surrogate

__all__ = ["Run", "require_finished"]


@dataclass(frozen=True)
class Run:
    """A finished training: its recipe, its best weights and its images.

    Attributes:
        path: The run folder.
        recipe: What was trained.
        model: The network with the weights of the epoch the recipe's evaluate section names.
        data: Training, validation and test images.
        data_root: Folder of the data sets, where it was named.
    """

    path: Path
    recipe: Recipe
    model: SNN
    data: Splits
    data_root: Path | None = None

    @classmethod
    def load(cls, path: str | Path, *, data_root: str | Path | None = None) -> Run:
        """Rebuild a run from its folder.

        Args:
            path: The run folder.
            data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.

        Raises:
            ConfigError: If it is no run folder, or its training is not finished.
            CheckpointError: If the weights do not fit the recipe, or are damaged.
        """
        from spikeguard.storage.checkpoints import load_model

        path = Path(path)
        recipe = load_recipe(require_finished(path) / RECIPE)
        data = load_data(recipe, data_root)
        model = build_model(recipe, data)
        load_model(path / CHECKPOINTS / recipe.evaluate.checkpoint, model)
        return cls(path, recipe, model, data, None if data_root is None else Path(data_root))

    def evaluate(
        self,
        suite: str,
        *,
        eps: float,
        plan: EvaluateSection | None = None,
        jobs: int = 1,
        progress: Update | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> Evaluation:
        """Attack the run and keep the result in ``attacks/``; what is already there is read back.

        An interrupted evaluation continues where it stopped.

        Args:
            suite: Name of an attack suite.
            eps: Radius of the threat set.
            plan: Norm, limit, draws and the rest; the recipe's evaluate section when left out.
            jobs: Processes of one thread each that share the images, >= 1; with more than one, a
                script needs ``if __name__ == "__main__":``.
            progress: Called with (done, total, what).
            announce: Told what the attacks will cost at most, before they begin.

        Raises:
            ValueError: If the suite or the radius is refused, or a stored result was made with
                other settings.
        """
        plan = self.recipe.evaluate if plan is None else plan
        return evaluate_once(
            self.model,
            self.data,
            suite,
            eps=eps,
            plan=plan,
            seed=self.recipe.seed,
            folder=self.path / ATTACKS,
            jobs=jobs,
            reload=self.reload,
            progress=progress,
            announce=announce,
        )

    def audit(
        self,
        *,
        eps: float | None = None,
        limit: int | None = None,
        budget: Budget = "full",
        norm: str | None = None,
        attack: str | None = None,
        tune: bool = False,
        progress: Update | None = None,
    ) -> Verdict:
        """Audit the run and keep the verdict in ``audit.json``.

        Args:
            eps: Radius of the threat set; the largest of the recipe's when left out.
            limit: Number of test images; the audit's own default when left out.
            budget: "full", or "quick" for fewer samples, steps and checks.
            norm: Norm of the threat set; the recipe's when left out.
            attack: The attack whose number is in question, by the name a suite gives it; the
                audit's own when left out.
            tune: Choose the setting of that attack's gradient on validation images first.
            progress: Called with (done, total, what).
        """
        from spikeguard.attacks.threat import THREATS

        plan = self.recipe.evaluate.changed(eps=eps, limit=limit, norm=norm)
        threat = THREATS[plan.norm](max(plan.eps))
        named = None if attack is None else reported(attack, self.model, threat)
        how = None
        if tune:
            named, how = choose_attack(
                *(named, self.model, self.data.val),
                folder=self.path / ATTACKS / FOLDER,
                seed=self.recipe.seed,
                mark=checkpoint_tag(plan),
                progress=progress,
            )
        verdict = audit(
            self.model,
            self.data.test,
            threat=threat,
            budget=budget,
            seed=self.recipe.seed,
            limit=limit,
            attack=named,
            tuned=how,
            rescore=partial(rescored, self.path, self.data_root),
            trained_with=self.surrogates,
            progress=progress,
        )
        verdict.save(self.path / AUDIT)
        return verdict

    @property
    def reload(self) -> Reload:
        """What returns the model and its test images in another process."""
        return partial(_reloaded, self.path.absolute(), self.data_root)

    @property
    def surrogates(self) -> dict[str, Surrogate]:
        """The surrogate that each spiking layer was trained with, as the recipe says."""
        from spikeguard.neurons.modes import spiking_layers

        fresh = build_model(self.recipe, self.data)
        return {name: layer.surrogate for name, layer in spiking_layers(fresh).items()}

    def membrane(self) -> MembraneHistogram:
        """Return where membrane potentials lie; kept in ``analysis/membrane.npz``."""
        from spikeguard.analysis.membrane import MembraneHistogram, membrane_histogram

        path = self.path / MEMBRANE
        if path.exists():
            return MembraneHistogram.load(path)
        found = membrane_histogram(self.model, self.data.test, seed=self.recipe.seed)
        found.save(path)
        return found


def _reloaded(path: Path, data_root: Path | None) -> tuple[SNN, ImageSet]:
    run = Run.load(path, data_root=data_root)
    return run.model, run.data.test


def require_finished(path: Path) -> Path:
    """Return the folder of a finished run, or say what is wrong with it."""
    if not path.is_dir():
        raise ConfigError(f"{path}: no such run folder.")
    if not (path / RECIPE).is_file():
        raise ConfigError(f"{path}: not a run folder, it holds no {RECIPE}.")
    if not (path / RESULT).is_file():
        raise ConfigError(
            f"{path}: its training is not finished; continue it with: spikeguard train "
            f"{shlex.quote(str(path / RECIPE))} --out {shlex.quote(str(path))} --resume"
        )
    return path

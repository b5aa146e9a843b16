"""Run: a finished training, loaded from its run folder to be attacked and audited."""

from __future__ import annotations

import json
import multiprocessing
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config.builder import build_model, load_data
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins
from spikeguard.config.schema import EvaluateSection, Recipe, load_recipe
from spikeguard.config.trained_recipe import require_trained_recipe
from spikeguard.runs.attack_results import evaluate_once, require_identity
from spikeguard.runs.audits import audit_once
from spikeguard.runs.data_record import require_recorded_data
from spikeguard.runs.fresh_process import rescored
from spikeguard.runs.plugin_versions import warn_of_other_versions
from spikeguard.storage.digests import IDENTITY, is_sealed, weights_digest
from spikeguard.storage.folder_lock import locked
from spikeguard.storage.run_folder import (
    ATTACKS,
    AUDIT,
    CHECKPOINTS,
    MEMBRANE,
    RECIPE,
    RESULT,
    no_such_run,
)

if TYPE_CHECKING:
    from spikeguard.analysis.membrane import MembraneHistogram
    from spikeguard.auditing.findings import Verdict
    from spikeguard.auditing.numbers import Claim
    from spikeguard.auditing.subject import Budget
    from spikeguard.data.images import ImageSet, Splits
    from spikeguard.evaluation.parallel import Reload
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.models.snn import SNN
    from spikeguard.neurons.surrogate import Surrogate
    from spikeguard.system.progress import ProgressCallback

__all__ = ["Run", "require_finished"]


@dataclass(frozen=True)
class Run:
    """A finished training: its recipe, its trained weights and its images.

    Attributes:
        path: The run folder.
        recipe: The recipe, with the packages from which its parts may be imported.
        model: The network, with the checkpoint that the recipe's evaluate section names.
        data: Training, validation and test images.
        data_root: Folder of the data sets, or None.
    """

    path: Path
    recipe: Recipe
    model: SNN
    data: Splits
    data_root: Path | None = None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        data_root: str | Path | None = None,
        plugins: Iterable[str] | Plugins = (),
        device: str = "cpu",
    ) -> Run:
        """Rebuild a run from its folder.

        Args:
            path: The run folder.
            data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.
            plugins: Packages from which parts named ``package.module:Part`` may be imported.
            device: Where the model is, "cpu" or "cuda"; attacks run there.

        Raises:
            ConfigError: If it is no run folder, its training is not finished, its recipe was
                changed after the training, or it needs a package that is not in ``plugins``.
            CheckpointError: If the weights do not fit the recipe, or are damaged.
        """
        from spikeguard.storage.checkpoints import load, restore_model

        path = Path(path)
        recipe = load_recipe(require_finished(path) / RECIPE, plugins=plugins)
        if multiprocessing.parent_process() is None:  # once, not in every worker
            warn_of_other_versions(path, recipe.plugins)
        place = path / CHECKPOINTS / recipe.evaluate.checkpoint
        found = load(place)
        if found is None:
            raise ConfigError(f"{place}: there is no checkpoint.")
        require_trained_recipe(recipe, found.info, path / RECIPE)
        data = load_data(recipe, data_root)
        require_recorded_data(path, recipe.data.name, data)
        model = build_model(recipe, data)
        restore_model(model, found.model, where=str(place))
        model.to(device)
        return cls(path, recipe, model, data, None if data_root is None else Path(data_root))

    def evaluate(
        self,
        suite: str,
        *,
        eps: float,
        plan: EvaluateSection | None = None,
        jobs: int = 1,
        check: bool = True,
        progress: ProgressCallback | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> Evaluation:
        """Attack the run and store the result in ``attacks/``, or load it if it is stored.

        An interrupted evaluation continues where it stopped.

        Args:
            suite: Name of an attack suite, an attack line, or ``package.module:Attack``.
            eps: Radius of the threat set.
            plan: Norm, limit, draws and so on; the recipe's evaluate section when left out.
            jobs: Number of processes of one thread each, >= 1; with more than one, a script needs
                ``if __name__ == "__main__":``.
            check: Whether to check the network before a new evaluation; see ``evaluate``.
            progress: Callback ``(done, total, what)``, or None.
            announce: Called with lines of text, such as the cost before the attacks start.

        Raises:
            ValueError: If the suite or the radius is rejected, or a stored result was made with
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
            plugins=self.recipe.plugins,
            check=check,
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
        seed: int | None = None,
        printed: Claim | None = None,
        max_gap: float | None = None,
        check: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Verdict:
        """Audit the run and store the verdict in ``audit.json``; a killed audit continues.

        The bound includes the results in ``attacks/`` at the audited radius, and a short converging
        search if none of them has one.

        Args:
            eps: Radius of the threat set; the largest of the recipe's when left out.
            limit: Number of test images; the audit's own default when left out.
            budget: "full", or "quick" for fewer samples, steps and checks.
            norm: Norm of the threat set; the recipe's when left out.
            attack: The attack of the printed number: its name in a suite, an attack line, or
                ``package.module:Attack``; PGD-40 with the own surrogate when left out.
            tune: Choose the setting of that attack's gradient on validation images first.
            seed: Seed of the audit's random streams; the recipe's when left out.
            printed: A number measured elsewhere, judged instead of that attack's.
            max_gap: The printed number may exceed the bound by this share; 0.02 when left out.
            check: Whether to reject a network at once that is not repeatable; see ``audit``.
            progress: Callback ``(done, total, what)``, or None.
        """
        from spikeguard.attacks.threat_names import threat_of

        plan = self.recipe.evaluate.changed(eps=eps, limit=limit, norm=norm)
        return audit_once(
            *(self.path, self.model, self.data, threat_of(plan.norm, max(plan.eps))),
            plan=plan,
            own_seed=self.recipe.seed,
            seed=seed,
            plugins=self.recipe.plugins,
            budget=budget,
            limit=limit,
            attack=attack,
            tune=tune,
            printed=printed,
            max_gap=max_gap,
            rescore=partial(rescored, self.path, self.data_root, plugins=self.recipe.plugins),
            trained_with=self.surrogates,
            check=check,
            progress=progress,
        )

    def stored_verdict(self) -> str:
        """Return the status of the bound in ``audit.json``.

        Raises:
            ConfigError: If the file is missing or damaged, or of other weights or images.
        """
        from spikeguard.evaluation.identity import identity_of

        file = self.path / AUDIT
        try:
            card = json.loads(file.read_text(encoding="utf-8"))
            is_sealed(card)
            status, identity = str(card["status"]), card.get(IDENTITY)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{file}: damaged ({error}); move it away and audit again."
            ) from error
        require_identity(identity, identity_of(self.model, self.data.test), file)
        return status

    @property
    def reload(self) -> Reload:
        """A function that returns the model and its test images in another process."""
        place = (self.path.absolute(), self.data_root)
        return partial(_reloaded, *place, self.recipe.plugins, self.device)

    @property
    def device(self) -> str:
        """Where the model is: "cpu" or "cuda"."""
        return next((p.device.type for p in self.model.parameters()), "cpu")

    @property
    def surrogates(self) -> dict[str, Surrogate]:
        """The surrogate of each spiking layer during training, according to the recipe."""
        from spikeguard.neurons.modes import spiking_layers

        fresh = build_model(self.recipe, self.data)
        return {name: layer.surrogate for name, layer in spiking_layers(fresh).items()}

    def membrane(self) -> MembraneHistogram:
        """Return the distribution of membrane potentials; stored in ``analysis/membrane.npz``.

        A stored one of other weights is measured again.
        """
        from spikeguard.analysis.membrane import MembraneHistogram, membrane_histogram

        path = self.path / MEMBRANE
        if path.exists():
            found = MembraneHistogram.load(path)
            if found.weights == weights_digest(self.model.state_dict()):
                return found
        found = membrane_histogram(self.model, self.data.test, seed=self.recipe.seed)
        with locked(self.path):
            found.save(path)
        return found


def _reloaded(
    path: Path, data_root: Path | None, plugins: Plugins, device: str
) -> tuple[SNN, ImageSet]:
    run = Run.load(path, data_root=data_root, plugins=plugins, device=device)
    return run.model, run.data.test


def require_finished(path: Path) -> Path:
    """Return the folder of a finished run; raise ConfigError for any other folder."""
    if not path.is_dir():
        raise ConfigError(no_such_run(path))
    if not (path / RECIPE).is_file():
        raise ConfigError(f"{path}: not a run folder, it holds no {RECIPE}.")
    if not (path / RESULT).is_file():
        raise ConfigError(
            f"{path}: its training is not finished; continue it with: spikeguard train "
            f"{shlex.quote(str(path / RECIPE))} --out {shlex.quote(str(path))} --resume"
        )
    return path

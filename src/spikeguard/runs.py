"""The run folder: where everything lies, and a trained run loaded back from it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config import (
    ConfigError,
    EvaluateSection,
    Recipe,
    build,
    build_model,
    eps_text,
    load_data,
    load_recipe,
    require_images,
)
from spikeguard.environment import describe
from spikeguard.files import write_json

if TYPE_CHECKING:
    from spikeguard.analysis.membrane import MembraneHistogram
    from spikeguard.auditing import Verdict
    from spikeguard.data import Splits
    from spikeguard.evaluation import Evaluation
    from spikeguard.models import SNN
    from spikeguard.training import TrainResult

__all__ = [
    "ANALYSIS",
    "ATTACKS",
    "AUDIT",
    "BEST",
    "CHECKPOINTS",
    "ENVIRONMENT",
    "LAST",
    "MEMBRANE",
    "METRICS",
    "RECIPE",
    "REPORT",
    "RESULT",
    "Run",
    "attack_name",
    "train_recipe",
]

Update = Callable[[int, int, str], None]

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
BEST = f"{CHECKPOINTS}/best"
LAST = f"{CHECKPOINTS}/last"
ATTACKS = "attacks"
AUDIT = "audit.json"
ANALYSIS = "analysis"
MEMBRANE = f"{ANALYSIS}/membrane.npz"
REPORT = "report.html"

EOT = 4  # gradients averaged in every attack step against a stochastic model, if nobody says


@dataclass(frozen=True)
class Run:
    """A finished training: its recipe, its best weights and its images.

    Attributes:
        path: The run folder.
        recipe: What was trained.
        model: The network with the weights of the epoch the recipe's evaluate section names.
        data: Training, validation and test images.
    """

    path: Path
    recipe: Recipe
    model: SNN
    data: Splits

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
        from spikeguard.checkpoint import load_model

        path = Path(path)
        recipe = load_recipe(require_finished(path) / RECIPE)
        data = load_data(recipe, data_root)
        model = build_model(recipe, data)
        load_model(path / CHECKPOINTS / recipe.evaluate.checkpoint, model)
        return cls(path, recipe, model, data)

    def evaluate(
        self,
        suite: str,
        *,
        eps: float,
        plan: EvaluateSection | None = None,
        progress: Update | None = None,
    ) -> Evaluation:
        """Attack the run and keep the result in ``attacks/``; what is already there is read back.

        An interrupted evaluation continues where it stopped.

        Args:
            suite: Name of an attack suite.
            eps: Radius of the threat set.
            plan: Norm, limit, draws and the rest; the recipe's evaluate section when left out.
            progress: Called with (done, total, what).

        Raises:
            ValueError: If the suite or the radius is refused, or a stored result was made with
                other settings.
        """
        from spikeguard import attacks
        from spikeguard.attacks.base import is_stochastic
        from spikeguard.evaluation import Evaluation, evaluate

        plan = self.recipe.evaluate if plan is None else plan
        require_images(plan.limit, self.data)
        eot = plan.eot if plan.eot is not None else EOT if is_stochastic(self.model) else 1
        plan = plan.changed(eot=eot)
        battery = attacks.suite(suite, eps=eps, norm=plan.norm, eot=eot)
        name = attack_name(suite, eps, plan)
        stem = self.path / ATTACKS / name
        if stem.with_name(f"{name}.json").exists():
            found = Evaluation.load(stem)
            settings = {key: attacks.describe(part) for key, part in battery.items()}
            wanted = json.loads(json.dumps([settings, plan.cascade, plan.precision]))
            if [found.settings, found.cascade, found.precision] != wanted:
                raise ConfigError(
                    f"{stem}.json was made with other attack settings; move it away and run again."
                )
            return found
        result = evaluate(
            self.model,
            self.data.test,
            battery,
            seed=self.recipe.seed,
            limit=plan.limit,
            batch_size=plan.batch_size,
            draws=plan.draws,
            cascade=plan.cascade,
            precision=plan.precision,
            out=stem,
            progress=progress,
        )
        result.save(stem, suite=suite, eot=eot, limit=plan.limit, checkpoint=plan.checkpoint)
        return result

    def audit(
        self,
        *,
        eps: float | None = None,
        limit: int | None = None,
        progress: Update | None = None,
    ) -> Verdict:
        """Audit the run and keep the verdict in ``audit.json``.

        Args:
            eps: Radius of the threat set; the largest of the recipe's when left out.
            limit: Number of test images; the audit's own default when left out.
            progress: Called with (done, total, what).
        """
        from spikeguard.attacks import THREATS
        from spikeguard.auditing import audit

        plan = self.recipe.evaluate.changed(eps=eps, limit=limit)
        threat = THREATS[plan.norm](max(plan.eps))
        images = {} if limit is None else {"limit": limit}
        verdict = audit(
            self.model,
            self.data.test,
            threat=threat,
            seed=self.recipe.seed,
            progress=progress,
            **images,
        )
        verdict.save(self.path / AUDIT)
        return verdict

    def membrane(self) -> MembraneHistogram:
        """Return where membrane potentials lie; kept in ``analysis/membrane.npz``."""
        from spikeguard.analysis.membrane import MembraneHistogram, membrane_histogram

        path = self.path / MEMBRANE
        if path.exists():
            return MembraneHistogram.load(path)
        found = membrane_histogram(self.model, self.data.test, seed=self.recipe.seed)
        found.save(path)
        return found


def train_recipe(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool = False,
    data_root: str | Path | None = None,
    progress: Update | None = None,
) -> TrainResult:
    """Build a recipe and train it in a run folder; nothing is written before everything is built.

    Args:
        recipe: What to train.
        path: The run folder.
        resume: Continue what the folder holds, or start when it holds nothing.
        data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.
        progress: Called with (steps done, steps in all, text).

    Raises:
        ConfigError: If the folder holds a run and ``resume`` is off, or the run of another recipe.
    """
    from spikeguard.resumption import difference
    from spikeguard.training import train

    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; choose another folder with --out.")
    if path.is_dir() and any(path.iterdir()):
        if not resume:
            raise ConfigError(
                f"{path} exists; add --resume to continue it, or choose another folder with --out."
            )
        if (path / RECIPE).is_file():
            begun = load_recipe(path / RECIPE)
            change = difference(begun.training_part(), recipe.training_part())
            if change:
                raise ConfigError(f"{path} was begun with another recipe: {change}.")
    built = build(recipe, data_root)
    recipe.save(path / RECIPE)
    if not (path / ENVIRONMENT).exists():
        write_json(path / ENVIRONMENT, {**describe(seed=recipe.seed), "kernel": _kernel()})
    return train(
        built.model,
        built.data,
        built.objective,
        built.options,
        out=path,
        resume=resume,
        progress=progress,
        recipe=recipe.training_part(),
    )


def attack_name(suite: str, eps: float, plan: EvaluateSection) -> str:
    """Name the result of an evaluation by all that tells it from another of the same run.

    Example:
        >>> attack_name("quick", 8 / 255, EvaluateSection(limit=100))
        'quick-linf-8_255-first100'
    """
    parts = [suite, plan.norm, eps_text(eps).replace("/", "_")]
    parts += [f"eot{plan.eot}"] if plan.eot is not None and plan.eot > 1 else []
    parts += [f"draws{plan.draws}"] if plan.draws is not None else []
    parts += [f"first{plan.limit}"] if plan.limit is not None else []
    parts += ["cascade"] if plan.cascade else []
    parts += [plan.precision] if plan.precision != "32" else []
    parts += [plan.checkpoint] if plan.checkpoint != "best" else []
    return "-".join(parts)


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


def _kernel() -> str:
    """Return the membrane kernel that a training on this machine uses."""
    import torch

    from spikeguard.kernels import default_kernel

    return default_kernel(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

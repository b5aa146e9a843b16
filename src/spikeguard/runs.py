"""The run folder: where everything lies, and a trained run loaded back from it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
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
    from torch import Tensor, nn

    from spikeguard.analysis.membrane import MembraneHistogram
    from spikeguard.auditing import Budget, Verdict
    from spikeguard.data import Splits
    from spikeguard.evaluation import Evaluation
    from spikeguard.models import SNN
    from spikeguard.neurons import Surrogate
    from spikeguard.rescoring import Rescored
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
    "evaluate_once",
    "rescore_once",
    "rescored",
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
        from spikeguard.checkpoint import load_model

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
        progress: Update | None = None,
        announce: Callable[[str], None] | None = None,
    ) -> Evaluation:
        """Attack the run and keep the result in ``attacks/``; what is already there is read back.

        An interrupted evaluation continues where it stopped.

        Args:
            suite: Name of an attack suite.
            eps: Radius of the threat set.
            plan: Norm, limit, draws and the rest; the recipe's evaluate section when left out.
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
            progress=progress,
            announce=announce,
        )

    def audit(
        self,
        *,
        eps: float | None = None,
        limit: int | None = None,
        budget: Budget = "full",
        progress: Update | None = None,
    ) -> Verdict:
        """Audit the run and keep the verdict in ``audit.json``.

        Args:
            eps: Radius of the threat set; the largest of the recipe's when left out.
            limit: Number of test images; the audit's own default when left out.
            budget: "full", or "quick" for fewer samples, steps and checks.
            progress: Called with (done, total, what).
        """
        from spikeguard.attacks import THREATS
        from spikeguard.auditing import audit

        plan = self.recipe.evaluate.changed(eps=eps, limit=limit)
        threat = THREATS[plan.norm](max(plan.eps))
        verdict = audit(
            self.model,
            self.data.test,
            threat=threat,
            budget=budget,
            seed=self.recipe.seed,
            limit=limit,
            rescore=partial(rescored, self.path, self.data_root),
            trained_with=self.surrogates,
            progress=progress,
        )
        verdict.save(self.path / AUDIT)
        return verdict

    @property
    def surrogates(self) -> dict[str, Surrogate]:
        """The surrogate that each spiking layer was trained with, as the recipe says."""
        from spikeguard.neurons import spiking_layers

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


def rescored(path: Path, data_root: Path | None, x: Tensor, y: Tensor) -> Tensor:
    """Return who is right on inputs [N], as a fresh process says that loads the run.

    Args:
        path: The run folder.
        data_root: Folder of the data sets, where it was named.
        x: Inputs [N, ...] in [0, 1].
        y: Labels [N].

    Raises:
        RuntimeError: If the process fails; the last line it wrote.
    """
    import torch
    from numpy import load, savez

    code = "import sys; from spikeguard.runs import answer; answer(*sys.argv[1:])"
    with TemporaryDirectory() as folder:
        asked, answers = Path(folder) / "asked.npz", Path(folder) / "answers.npz"
        savez(asked, x=x.numpy(), y=y.numpy())
        words = [str(Path(path).absolute()), "" if data_root is None else str(data_root)]
        done = subprocess.run(
            [sys.executable, "-c", code, *words, str(asked), str(answers)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(f"the fresh process that was to score again failed: {last}")
        with load(answers) as found:
            return torch.from_numpy(found["right"])


def answer(path: str, data_root: str, asked: str, answers: str) -> None:
    """Load a run, score the inputs of one file, and write who is right into another."""
    import torch
    from numpy import load, savez

    from spikeguard.evaluation import evaluate

    run = Run.load(path, data_root=data_root or None)
    with load(asked) as found:
        x, y = torch.from_numpy(found["x"]), torch.from_numpy(found["y"])
    right = evaluate(run.model, (x, y), {}, seed=run.recipe.seed).outcomes["clean"]
    savez(answers, right=right.numpy())


def evaluate_once(
    model: nn.Module,
    data: Splits,
    suite: str,
    *,
    eps: float,
    plan: EvaluateSection,
    seed: int,
    folder: Path,
    progress: Update | None = None,
    announce: Callable[[str], None] | None = None,
) -> Evaluation:
    """Attack a model and keep the result in a folder; what is already there is read back.

    An interrupted evaluation continues where it stopped.

    Args:
        model: The classifier.
        data: Its test images are attacked.
        suite: Name of an attack suite.
        eps: Radius of the threat set.
        plan: Norm, limit, draws and the rest.
        seed: Names the random streams.
        folder: Holds results of this model alone.
        progress: Called with (done, total, what).
        announce: Told what the attacks will cost at most, before they begin.

    Raises:
        ValueError: If the suite or the radius is refused, or a stored result was made with other
            settings.
    """
    from spikeguard import attacks
    from spikeguard.costing import estimate
    from spikeguard.evaluation import Evaluation, evaluate

    require_images(plan.limit, data)
    plan = _with_draws(plan, model)
    cascade = plan.cascade if plan.cascade is not None else suite in attacks.CASCADES
    battery = attacks.suite(suite, eps=eps, norm=plan.norm, eot=plan.eot or 1)
    battery, left_out = attacks.suitable(battery, model)
    stem = folder / attack_name(suite, eps, plan)
    if stem.with_name(f"{stem.name}.json").exists():
        found = Evaluation.load(stem)
        settings = {key: attacks.describe(part) for key, part in battery.items()}
        wanted = json.loads(json.dumps([settings, cascade, plan.precision]))
        if [found.settings, found.cascade, found.precision] != wanted:
            raise ConfigError(
                f"{stem}.json was made with other attack settings; move it away and run again."
            )
        return found
    if announce is not None:
        if left_out:
            announce(f"left out, the model has no spiking layers for them: {', '.join(left_out)}")
        size = plan.batch_size
        announce(str(estimate(model, data.test, battery, limit=plan.limit, batch_size=size)))
    result = evaluate(
        model,
        data.test,
        battery,
        seed=seed,
        limit=plan.limit,
        batch_size=plan.batch_size,
        draws=plan.draws,
        cascade=cascade,
        precision=plan.precision,
        out=stem,
        progress=progress,
    )
    result.save(stem, suite=suite, eot=plan.eot, limit=plan.limit, checkpoint=plan.checkpoint)
    return result


def rescore_once(
    model: nn.Module,
    data: Splits,
    suite: str,
    *,
    eps: float,
    plan: EvaluateSection,
    folder: Path,
) -> Rescored:
    """Score the inputs that a finished attack kept once more; arguments as for evaluate_once.

    Raises:
        ValueError: If there is no such attack, or its files are damaged or of other images.
        ThreatViolation: If an input lies outside the threat set.
    """
    from spikeguard.rescoring import rescore

    stem = folder / attack_name(suite, eps, _with_draws(plan, model))
    if not stem.with_name(f"{stem.name}.json").exists():
        raise ConfigError(f"{stem}.json: no such result; attack first, without --rescore.")
    return rescore(model, data.test, stem)


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
    from spikeguard.attacks import CASCADES

    parts = [suite, plan.norm, eps_text(eps).replace("/", "_")]
    parts += [f"eot{plan.eot}"] if plan.eot is not None and plan.eot > 1 else []
    parts += [f"draws{plan.draws}"] if plan.draws is not None else []
    parts += [f"first{plan.limit}"] if plan.limit is not None else []
    if plan.cascade is not None and plan.cascade != (suite in CASCADES):
        parts.append("cascade" if plan.cascade else "each")
    parts += [plan.precision] if plan.precision != "32" else []
    parts += [plan.checkpoint] if plan.checkpoint != "best" else []
    return "-".join(parts)


def _with_draws(plan: EvaluateSection, model: nn.Module) -> EvaluateSection:
    """Fill in how many gradients are averaged."""
    from spikeguard.attacks.base import is_stochastic

    if plan.eot is not None:
        return plan
    return plan.changed(eot=EOT if is_stochastic(model) else 1)


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

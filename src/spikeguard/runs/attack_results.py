"""Results of attacks in a folder: each is made once, and named after all that it was made with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.attacks.tuning import describe_tuned, tuned_to_json
from spikeguard.config.builder import require_images, tunable_suites
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import EvaluateSection, eps_text
from spikeguard.runs.tuned_settings import FOLDER, load_or_tune, tuned_from_json

if TYPE_CHECKING:
    from torch import nn

    from spikeguard.attacks.base import Attack
    from spikeguard.attacks.tuning import Tuned
    from spikeguard.data.images import Splits
    from spikeguard.evaluation.parallel import Reload
    from spikeguard.evaluation.rescoring import Rescored
    from spikeguard.evaluation.result import Evaluation

__all__ = ["attack_name", "evaluate_once", "rescore_once", "checkpoint_tag"]

Update = Callable[[int, int, str], None]

EOT = 4  # gradients averaged in every attack step against a stochastic model, if nobody says


def evaluate_once(
    model: nn.Module,
    data: Splits,
    suite: str,
    *,
    eps: float,
    plan: EvaluateSection,
    seed: int,
    folder: Path,
    jobs: int = 1,
    reload: Reload | None = None,
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
        jobs: Processes of one thread each that share the images; with one, this process does all.
        reload: Returns the model and its test images in another process, where there are several.
        progress: Called with (done, total, what).
        announce: Told what the attacks will cost at most, before they begin, and what settings were
            chosen for them.

    Raises:
        ValueError: If the suite or the radius is refused, or a stored result was made with other
            settings.
    """
    from spikeguard import attacks
    from spikeguard.evaluation.cost_estimate import estimate
    from spikeguard.evaluation.evaluator import evaluate
    from spikeguard.evaluation.parallel import run_shards
    from spikeguard.evaluation.plan import plan_evaluation

    if jobs < 1:
        raise ConfigError(f"jobs counts processes, >= 1, got {jobs}.")
    require_images(plan.limit, data)
    wished = plan.tune
    plan, battery, left_out = _planned(model, data, suite, eps, plan)
    cascade = plan.cascade if plan.cascade is not None else suite in attacks.CASCADES
    stem = folder / attack_name(suite, eps, plan)
    if stem.with_name(f"{stem.name}.json").exists():
        return _read_back(stem, battery, cascade, plan.precision, announce)
    if announce is not None:
        if left_out:
            announce(
                f"left out, the network has no layers of the kind they need: {', '.join(left_out)}"
            )
        if wished and not plan.tune:
            announce(f"suite {suite} has no setting to choose for this network")
        options: dict[str, Any] = {"batch_size": plan.batch_size, "jobs": jobs}
        announce(str(estimate(model, data.test, battery, limit=plan.limit, **options)))
    chosen: dict[str, Tuned] = {}
    if plan.tune:
        chosen = load_or_tune(
            *(model, data.val, battery),
            folder=folder / FOLDER,
            seed=seed,
            mark=checkpoint_tag(plan),
            batch_size=plan.batch_size,
            progress=progress,
            announce=announce,
        )
        battery = attacks.adjusted(battery, {kind: each.gradient for kind, each in chosen.items()})
        if announce is not None:
            announce(describe_tuned(tuned_to_json(chosen)))
    arguments: dict[str, Any] = {
        "attacks": battery,
        "seed": seed,
        "limit": plan.limit,
        "batch_size": plan.batch_size,
        "draws": plan.draws,
        "cascade": cascade,
        "precision": plan.precision,
        "out": stem,
    }
    if jobs > 1 and reload is not None:
        layout = plan_evaluation(model, data.test, **arguments, jobs=jobs)
        run_shards(layout, reload, arguments, jobs, progress)
        progress = None  # all is told
    result = evaluate(model, data.test, **arguments, progress=progress)
    more = {"tuned": tuned_to_json(chosen)} if chosen else {}
    told = {"eot": plan.eot, "limit": plan.limit, "checkpoint": plan.checkpoint}
    result.save(stem, suite=suite, **told, **more)
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
    from spikeguard.evaluation.rescoring import rescore

    plan, _, _ = _planned(model, data, suite, eps, plan)
    stem = folder / attack_name(suite, eps, plan)
    if not stem.with_name(f"{stem.name}.json").exists():
        raise ConfigError(f"{stem}.json: no such result; attack first, without --rescore.")
    return rescore(model, data.test, stem)


def attack_name(suite: str, eps: float, plan: EvaluateSection) -> str:
    """Name the result of an evaluation by all that tells it from another of the same run.

    Example:
        >>> attack_name("quick", 8 / 255, EvaluateSection(limit=100))
        'quick-linf-8_255-first100'
    """
    from spikeguard.attacks.suite_definitions import CASCADES

    parts = [suite, plan.norm, eps_text(eps).replace("/", "_")]
    parts += [f"eot{plan.eot}"] if plan.eot is not None and plan.eot > 1 else []
    parts += [f"draws{plan.draws}"] if plan.draws is not None else []
    parts += [f"first{plan.limit}"] if plan.limit is not None else []
    if plan.cascade is not None and plan.cascade != (suite in CASCADES):
        parts.append("cascade" if plan.cascade else "each")
    parts += ["tuned"] if plan.tune and tunable_suites([suite]) else []
    parts += [plan.precision] if plan.precision != "32" else []
    parts += [checkpoint_tag(plan)] if checkpoint_tag(plan) else []
    return "-".join(parts)


def checkpoint_tag(plan: EvaluateSection) -> str:
    """Name the weights that are attacked, where they are not those of the best epoch."""
    return plan.checkpoint if plan.checkpoint != "best" else ""


def _planned(
    model: nn.Module, data: Splits, suite: str, eps: float, plan: EvaluateSection
) -> tuple[EvaluateSection, dict[str, Attack], tuple[str, ...]]:
    """Fill in what depends on the model: how many gradients are averaged, whether to tune.

    Returns:
        The plan, the suite's attacks that can be made, and the names of the others.
    """
    from spikeguard import attacks
    from spikeguard.attacks.model_access import is_stochastic

    if plan.eot is None:
        plan = plan.changed(eot=EOT if is_stochastic(model) else 1)
    battery = attacks.suite(suite, eps=eps, norm=plan.norm, eot=plan.eot or 1)
    example = data.test.batch(slice(plan.batch_size))[0]
    battery, left_out = attacks.suitable(battery, model, example)
    return plan.changed(tune=plan.tune and bool(attacks.tunable(battery))), battery, left_out


def _read_back(
    stem: Path,
    battery: Mapping[str, Attack],
    cascade: bool,
    precision: str,
    announce: Callable[[str], None] | None,
) -> Evaluation:
    """Read a finished result; refuse one that was made with other settings."""
    from spikeguard import attacks
    from spikeguard.evaluation.result import Evaluation

    found = Evaluation.load(stem)
    card = json.loads(stem.with_name(f"{stem.name}.json").read_text(encoding="utf-8"))
    battery = attacks.adjusted(battery, tuned_from_json(card.get("tuned", {}), stem))
    if card.get("tuned") and announce is not None:
        announce(describe_tuned(card["tuned"]))
    settings = {name: attacks.describe(attack) for name, attack in battery.items()}
    wanted = json.loads(json.dumps([settings, cascade, precision]))
    if [found.settings, found.cascade, found.precision] != wanted:
        raise ConfigError(
            f"{stem}.json was made with other attack settings; move it away and run again."
        )
    return found

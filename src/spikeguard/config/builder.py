"""build(): from a recipe to model, data, objective and training options.

The composition root: it combines the parts of all registries.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.attack_lines import build_attack, is_line
from spikeguard.config.contracts import require_attack
from spikeguard.config.data_sources import load_images
from spikeguard.config.errors import ConfigError, ConfigPath, raised, unknown_name
from spikeguard.config.event_data import event_encoder, framing, in_steps, require_fitting
from spikeguard.config.instantiate import call_checked, instantiate
from spikeguard.config.plugins import NO_PLUGINS, Plugins, is_reference
from spikeguard.config.schema import EvaluateSection, Recipe

if TYPE_CHECKING:
    from spikeguard.attacks.base import Attack
    from spikeguard.data.images import Splits
    from spikeguard.data.own import EvaluationImages
    from spikeguard.defences.objective import Objective
    from spikeguard.models.snn import SNN
    from spikeguard.training.options import TrainOptions

__all__ = [
    "Built",
    "build",
    "build_model",
    "build_objective",
    "build_suite",
    "load_data",
    "require_images",
    "require_tunable",
    "tunable_suites",
]


@dataclass(frozen=True)
class Built:
    """Everything that a recipe describes.

    Attributes:
        model: The network, freshly initialised from the recipe's seed.
        data: Training, validation and test images.
        objective: The loss that training minimises.
        options: Options of the training.
    """

    model: SNN
    data: Splits
    objective: Objective
    options: TrainOptions


def build(
    recipe: Recipe, data_root: str | Path | None = None, *, data: Splits | None = None
) -> Built:
    """Build everything a recipe names; nothing is written.

    Args:
        recipe: From :func:`load_recipe`.
        data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.
        data: The recipe's images, where they are loaded already.

    Raises:
        ConfigError: If a name or an option is unknown, a value is rejected, the data are missing,
            or a part of another package is not allowed (see ``load_recipe``) or breaks its
            contract.
    """
    from spikeguard.training.options import TrainOptions

    require_suites(recipe)  # now, not after hours of training
    require_tunable(recipe.evaluate, ConfigPath("evaluate.tune", recipe.label))
    options = call_checked(
        TrainOptions, recipe.train, ConfigPath("train", recipe.label), seed=recipe.seed
    )
    objective = build_objective(recipe)
    data = load_data(recipe, data_root) if data is None else in_steps(recipe, data)
    require_images(recipe.evaluate.limit, data, ConfigPath("evaluate.limit", recipe.label))
    model = build_model(recipe, data)
    try:
        objective.require(model, options)
    except ValueError as error:
        raise ConfigError(f"{ConfigPath('objective', recipe.label)}: {error}") from error
    return Built(model, data, objective, options)


def load_data(recipe: Recipe, data_root: str | Path | None = None) -> Splits:
    """Load the recipe's images; recordings of events are framed in ``model.T`` steps."""
    settings = recipe.data.model_dump(exclude={"name", "frames"})
    settings |= framing(recipe)
    where = ConfigPath("data", recipe.label)
    found = load_images(
        recipe.data.name,
        data_root,
        where=where,
        plugins=recipe.plugins,
        seed=recipe.seed,
        **settings,
    )
    return in_steps(recipe, found)


def require_suites(recipe: Recipe) -> None:
    """Reject unknown suites and attacks, wrong settings, and parts that are not attacks."""
    from spikeguard.attacks.suite_definitions import SUITES

    plan = recipe.evaluate
    place: dict[str, Any] = {"norm": plan.norm, "plugins": recipe.plugins}
    where = ConfigPath("evaluate.suite", recipe.label)
    for name in plan.suite:
        if is_reference(name):
            build_suite(name, eps=max(plan.eps), where=where, **place)
        elif name not in SUITES:
            raise unknown_name(where, "name", name, SUITES)
    for number, line in enumerate(plan.attacks):
        where = ConfigPath(f"evaluate.attacks.{number}", recipe.label)
        built = build_suite if is_reference(line) else build_attack
        built(line, eps=max(plan.eps), where=where, **place)


def build_suite(
    name: str,
    *,
    eps: float,
    norm: str,
    eot: int = 1,
    where: ConfigPath | str = "--suite",
    plugins: Plugins = NO_PLUGINS,
) -> dict[str, Attack]:
    """Return the attacks of a suite; a single attack is a suite of one.

    Args:
        name: One of ``SUITES``, an attack line, or ``package.module:Attack``, called as
            ``Attack(threat=...)``.
        eps: Radius of the threat set.
        norm: "linf", "l2", "l1", or a threat on events.
        eot: Gradients averaged in every step; an attack without the field ``gradient`` ignores it.
        where: Path in the recipe or option, for messages.
        plugins: Packages that may be imported.
    """
    from spikeguard.attacks.attack_lines import averaged
    from spikeguard.attacks.registry import ATTACKS
    from spikeguard.attacks.suites import attack_names, suite
    from spikeguard.attacks.threat_names import threat_of

    meant = " " in name or name in ATTACKS or name in attack_names()  # else a misspelt suite
    if is_line(name) and meant:
        return build_attack(name, eps=eps, norm=norm, eot=eot, where=where, plugins=plugins)
    if not is_reference(name):
        return suite(name, eps=eps, norm=norm, eot=eot)
    part = plugins.find(name, where)
    try:
        attack = averaged(part(threat=threat_of(norm, eps)), eot)
    except Exception as error:
        raise ConfigError(f"{where}: {name} {raised(error)}") from error
    require_attack(attack, name, where)
    return {name.partition(":")[2].lower(): attack}


def require_images(
    limit: int | None, data: Splits | EvaluationImages, where: ConfigPath | str = "limit"
) -> None:
    """Reject a limit above the number of test images: the result would be on fewer."""
    if limit is not None and limit > len(data.test):
        raise ConfigError(
            f"{where}: there are {len(data.test)} test images, got {limit}; write at most that, or "
            "leave it out (evaluate.limit= in a recipe) for all."
        )


def tunable_suites(suites: Iterable[str]) -> list[str]:
    """Return the suites whose gradients have a setting to choose."""
    from spikeguard.attacks.tuning import tunable

    known = (name for name in suites if not is_reference(name.partition(" ")[0]))
    return [name for name in known if tunable(build_suite(name, eps=0.1, norm="linf"))]


def require_tunable(plan: EvaluateSection, where: ConfigPath | str = "--tune") -> None:
    """Reject a request to choose settings where no suite has any."""
    from spikeguard.attacks.suite_definitions import SUITES

    if any(is_reference(name.partition(" ")[0]) for name in plan.runs):
        return  # the evaluation itself finds out
    if plan.tune and not tunable_suites(plan.runs):
        raise ConfigError(
            f"{where}: no setting to choose in suite {', '.join(plan.runs)}; there is one in: "
            f"{', '.join(tunable_suites(SUITES))}."
        )


def build_model(recipe: Recipe, data: Splits) -> SNN:
    """Build the recipe's network for images or event frames like those of ``data``."""
    from spikeguard.models import MODELS
    from spikeguard.rng import stream

    channels, height, width = data.test.shape
    where = ConfigPath("model", recipe.label)
    entry = event_encoder(recipe.model, data.test, where)
    if height != width:
        raise ConfigError(
            f"{where}: needs square images, {data.test.name} has {height} x {width}; crop "
            "or resize them."
        )
    model: SNN = instantiate(
        MODELS,
        entry,
        where,
        plugins=recipe.plugins,
        num_classes=data.test.num_classes,
        in_channels=channels,
        image_size=height,
        in_features=math.prod(data.test.shape),
        in_shape=data.test.shape,
        mean=data.mean,
        std=data.std,
        generator=stream(recipe.seed, "init"),
    )
    require_fitting(model, data.test, where)
    return model


def build_objective(recipe: Recipe) -> Objective:
    """Build the recipe's objective; an empty list is plain training."""
    from spikeguard.defences import DEFENCES
    from spikeguard.defences.objective import Objective

    where = ConfigPath("objective", recipe.label)
    objective = Objective(())
    for place, spec in enumerate(recipe.objective):
        piece = instantiate(DEFENCES, spec, where / place, plugins=recipe.plugins)
        try:
            objective = objective | piece
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
    return objective

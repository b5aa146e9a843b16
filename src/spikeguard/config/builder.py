"""The composition root: from a recipe to the objects it describes.

The only place that knows data sets, models, neurons, encoders, objectives and training options
together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config.errors import ConfigError, ConfigPath, unknown_name
from spikeguard.config.instantiate import call_checked, instantiate
from spikeguard.config.schema import EvaluateSection, Recipe

if TYPE_CHECKING:
    from spikeguard.data.images import Splits
    from spikeguard.defences.objective import Objective
    from spikeguard.models.snn import SNN
    from spikeguard.training.options import TrainOptions

__all__ = [
    "Built",
    "build",
    "build_model",
    "build_objective",
    "load_data",
    "require_images",
    "require_tunable",
    "tunable_suites",
]


@dataclass(frozen=True)
class Built:
    """What a recipe describes.

    Attributes:
        model: The network, freshly initialised from the recipe's seed.
        data: Training, validation and test images.
        objective: What training minimises.
        options: How training goes about it.
    """

    model: SNN
    data: Splits
    objective: Objective
    options: TrainOptions


def build(recipe: Recipe, data_root: str | Path | None = None) -> Built:
    """Build everything a recipe names; nothing is written.

    Args:
        recipe: From :func:`load_recipe`.
        data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.

    Raises:
        ConfigError: If a name or an option is unknown, a value is refused, or the data are missing.
    """
    from spikeguard.attacks.suite_definitions import SUITES
    from spikeguard.training.options import TrainOptions

    for suite in recipe.evaluate.suite:  # now, not after hours of training
        if suite not in SUITES:
            raise unknown_name(ConfigPath("evaluate.suite", recipe.label), "name", suite, SUITES)
    require_tunable(recipe.evaluate, ConfigPath("evaluate.tune", recipe.label))
    options = call_checked(
        TrainOptions, recipe.train, ConfigPath("train", recipe.label), seed=recipe.seed
    )
    objective = build_objective(recipe)
    data = load_data(recipe, data_root)
    require_images(recipe.evaluate.limit, data, ConfigPath("evaluate.limit", recipe.label))
    model = build_model(recipe, data)
    try:
        objective.require(model, options)
    except ValueError as error:
        raise ConfigError(f"{ConfigPath('objective', recipe.label)}: {error}") from error
    return Built(model, data, objective, options)


def load_data(recipe: Recipe, data_root: str | Path | None = None) -> Splits:
    """Load the recipe's images."""
    from spikeguard.data.datasets import load

    settings = recipe.data.model_dump(exclude={"name"})
    try:
        return load(recipe.data.name, data_root, seed=recipe.seed, **settings)
    except ValueError as error:
        raise ConfigError(f"data in {recipe.label}: {error}") from error


def require_images(limit: int | None, data: Splits, where: ConfigPath | str = "limit") -> None:
    """Refuse a limit above the number of test images: its results would not be what they say."""
    if limit is not None and limit > len(data.test):
        raise ConfigError(f"{where}: there are {len(data.test)} test images, got {limit}.")


def tunable_suites(suites: Iterable[str]) -> list[str]:
    """Return those of some attack suites whose gradients have a setting to choose."""
    from spikeguard.attacks.suites import suite
    from spikeguard.attacks.tuning import tunable

    return [name for name in suites if tunable(suite(name, eps=0.1))]


def require_tunable(plan: EvaluateSection, where: ConfigPath | str = "--tune") -> None:
    """Refuse to choose settings where no suite has any."""
    from spikeguard.attacks.suite_definitions import SUITES

    if plan.tune and not tunable_suites(plan.suite):
        raise ConfigError(
            f"{where}: no setting to choose in suite {', '.join(plan.suite)}; there is one in: "
            f"{', '.join(tunable_suites(SUITES))}."
        )


def build_model(recipe: Recipe, data: Splits) -> SNN:
    """Build the recipe's network for images like those of ``data``."""
    from spikeguard.models import MODELS
    from spikeguard.rng import stream

    channels, height, width = data.test.shape
    where = ConfigPath("model", recipe.label)
    if height != width:
        raise ConfigError(f"{where}: needs square images, {data.test.name} has {height} x {width}.")
    return instantiate(  # type: ignore[no-any-return]
        MODELS,
        recipe.model,
        where,
        num_classes=data.test.num_classes,
        in_channels=channels,
        image_size=height,
        in_features=math.prod(data.test.shape),
        in_shape=data.test.shape,
        mean=data.mean,
        std=data.std,
        generator=stream(recipe.seed, "init"),
    )


def build_objective(recipe: Recipe) -> Objective:
    """Build the recipe's objective; an empty list is plain training."""
    from spikeguard.defences import DEFENCES
    from spikeguard.defences.objective import Objective

    where = ConfigPath("objective", recipe.label)
    objective = Objective(())
    for place, spec in enumerate(recipe.objective):
        piece = instantiate(DEFENCES, spec, where / place)
        try:
            objective = objective | piece
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
    return objective

"""The recipe that a checkpoint was trained with, compared with the recipe in its run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import Recipe

__all__ = ["require_trained_recipe"]


def require_trained_recipe(recipe: Recipe, info: Mapping[str, Any], file: Path) -> None:
    """Reject a recipe file that was changed after the training.

    Titles, readings and the evaluate section may differ: the weights do not depend on them.

    Args:
        recipe: The recipe in the run folder.
        info: The ``info`` of the checkpoint; one without a recipe is accepted.
        file: The recipe's file, for the message.

    Raises:
        ConfigError: If they differ; the message names the first field that does.
    """
    from spikeguard.training.checkpointing import difference

    run = info.get("run")
    trained = run.get("recipe") if isinstance(run, Mapping) else None
    if not isinstance(trained, Mapping):
        return
    change = difference(_complete(trained), recipe.training_part())
    if change is not None:
        raise ConfigError(
            f"{file}: was changed after the training: {change}; restore it, or train the changed "
            "recipe in another folder."
        )


def _complete(trained: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fill in the fields that an older version did not know, with their defaults."""
    text = json.dumps({"name": "trained", **trained})
    try:
        return Recipe.model_validate_json(text).training_part()
    except ValueError:  # a field that this version does not know: reported as a difference
        return trained

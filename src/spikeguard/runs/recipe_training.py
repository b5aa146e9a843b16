"""train_recipe(): a recipe is built and trained in a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config.builder import build
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import Recipe, load_recipe
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.run_folder import ENVIRONMENT, RECIPE
from spikeguard.system.environment import describe

if TYPE_CHECKING:
    from spikeguard.training.trainer import TrainResult

__all__ = ["train_recipe"]


def train_recipe(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool = False,
    data_root: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
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
    from spikeguard.training.checkpointing import difference
    from spikeguard.training.trainer import train

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


def _kernel() -> str:
    """Return the membrane kernel that a training on this machine uses."""
    import torch

    from spikeguard.kernels.selection import default_kernel

    return default_kernel(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

"""train_recipe(): build a recipe and train it in a run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config.builder import Built, build
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import Recipe, load_recipe
from spikeguard.runs.data_record import data_record
from spikeguard.runs.plugin_versions import require_same_versions
from spikeguard.runs.training_plan import announce_memory
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.folder_lock import holds_nothing, locked
from spikeguard.storage.run_folder import CHECKPOINTS, ENVIRONMENT, RECIPE
from spikeguard.system.environment import describe

if TYPE_CHECKING:
    from spikeguard.system.progress import ProgressCallback
    from spikeguard.training.engine import LogName
    from spikeguard.training.trainer import TrainResult
    from spikeguard.training.world import World

__all__ = ["require_startable", "train_recipe"]


def train_recipe(
    recipe: Recipe,
    path: str | Path,
    *,
    resume: bool = False,
    data_root: str | Path | None = None,
    log: LogName | None = None,
    progress: ProgressCallback | None = None,
    announce: Callable[[str], None] | None = None,
    world: World | None = None,
) -> TrainResult:
    """Build a recipe and train it in a run folder; nothing is written before everything is built.

    Args:
        recipe: The recipe, with the packages from which its parts may be imported.
        path: The run folder.
        resume: Continue the training in the folder; start one in an empty folder.
        data_root: Folder of the data sets; ``$SPIKEGUARD_DATA`` or ``data`` when left out.
        log: "tensorboard" also writes TensorBoard events; see ``train``.
        progress: Callback ``(done, total, what)`` in optimiser steps, or None.
        announce: Called with the planned peak of memory before anything is written; a plan that
            does not fit is a ``MemoryPlanWarning``. None plans nothing.
        world: The ranks that train together, all of which call this function; None is this
            process alone.

    Raises:
        FolderLocked: If another process writes to the folder; nothing was changed.
        ConfigError: If the folder holds a run and ``resume`` is off, the run of another recipe, or
            one started with another version of a plugin.
        RankLost: If another rank fails or dies.
    """
    from spikeguard.training.engine import require_log
    from spikeguard.training.world import ALONE

    require_log(log)
    world = ALONE if world is None else world
    path, kernel = Path(path), _kernel()
    with ExitStack() as stack:
        with world.together():
            if path.exists() and not path.is_dir():
                raise ConfigError(f"{path} is a file; choose another folder with --out.")
            if world.is_first:  # it alone reads and writes the folder
                stack.enter_context(locked(path))
                require_startable(recipe, path, resume)
                require_same_versions(path, recipe.plugins)
        with world.together():
            built = build(recipe, data_root)
            if announce is not None and world.is_first:
                announce_memory(built, announce, ranks=world.size)
        return _train(recipe, path, built, kernel, world, resume=resume, log=log, progress=progress)


def require_startable(recipe: Recipe, path: Path, resume: bool) -> None:
    """Reject a folder that is in use, or with ``resume`` the run of another recipe.

    Raises:
        ConfigError: In these cases, and if ``path`` is a file.
    """
    from spikeguard.training.checkpointing import difference

    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; choose another folder with --out.")
    if not path.exists() or holds_nothing(path):
        return
    if not resume:
        raise ConfigError(
            f"{path} exists; add --resume to continue it, or choose another folder with --out."
        )
    if (path / RECIPE).is_file():
        stored = load_recipe(path / RECIPE)
        change = difference(stored.training_part(), recipe.training_part())
        if change:
            raise ConfigError(f"{path} was started with another recipe: {change}.")


def _train(
    recipe: Recipe,
    path: Path,
    built: Built,
    kernel: str,
    world: World,
    *,
    resume: bool,
    log: LogName | None,
    progress: ProgressCallback | None,
) -> TrainResult:
    """Write the recipe and the environment of a run, and train it."""
    from spikeguard.training.trainer import train

    names = (RECIPE, ENVIRONMENT) if world.is_first else ()
    written = [path / name for name in names if not (path / name).exists()]
    try:
        with world.together():
            if world.is_first:
                recipe.save(path / RECIPE)
            if path / ENVIRONMENT in written:
                ranks = {"ranks": world.size} if world.size > 1 else {}
                record = {**describe(seed=recipe.seed), "kernel": kernel, **ranks}
                plugins = {"plugins": recipe.plugins.versions()} if recipe.plugins.packages else {}
                own = data_record(recipe.data.name, built.data)
                write_json(path / ENVIRONMENT, {**record, **plugins, **own})
        return train(
            built.model,
            built.data,
            built.objective,
            built.options,
            out=path,
            resume=resume,
            log=log,
            progress=progress,
            recipe=recipe.training_part(),
            world=world,
        )
    except BaseException:
        if (
            written and not (path / CHECKPOINTS).exists()
        ):  # nothing was trained: free for another recipe
            for file in written:
                file.unlink(missing_ok=True)
        raise


def _kernel() -> str:
    """Return the name of the membrane kernel that training uses on this machine."""
    import torch

    from spikeguard.kernels.selection import default_kernel

    return default_kernel(torch.device("cuda" if torch.cuda.is_available() else "cpu"))

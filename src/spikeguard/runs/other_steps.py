"""A run with another number of time steps than it was trained with: RUN with --T."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.config.builder import build_model
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins
from spikeguard.runs.foreign_model import ForeignSubject
from spikeguard.runs.model_card import weights_of, write_or_check_card
from spikeguard.runs.run import Run
from spikeguard.storage.checkpoints import CheckpointError, restore_model
from spikeguard.storage.folder_lock import locked

if TYPE_CHECKING:
    from spikeguard.data.images import ImageSet
    from spikeguard.models.snn import SNN

__all__ = ["run_at_steps"]


def run_at_steps(run: Run, T: int, *, out: Path | None) -> ForeignSubject:
    """Return a run whose network takes ``T`` time steps, and the folder of its results.

    The weights are those of the run. The results are apart from those at its own T: in
    ``RUN/on/T<T>``, a folder that ``report`` reads like that of a foreign model.

    Args:
        run: The finished run.
        T: Time steps, >= 1.
        out: Folder of the results, or None.

    Raises:
        ConfigError: If T is below 1, the inputs or the weights depend on the trained T, or the
            folder holds results of other weights or another T.
    """
    model = _with_steps(run, T)
    path = run.path / "on" / f"T{T}" if out is None else out
    card = {"model": str(run.path), "data": run.recipe.data.name, **run.data.test.describe()}
    card |= {"weights": weights_of(model), "T": T}
    with locked(path, if_writable=True):
        write_or_check_card(path, card, {"arguments": [str(run.path), "--T", str(T)]})
    place = (run.path.absolute(), T, run.data_root)
    again = partial(_reloaded, *place, run.recipe.plugins, run.device)
    return ForeignSubject(path, model, run.data, None, again, run.recipe.plugins)


def _with_steps(run: Run, T: int) -> SNN:
    """Build the network for T steps and give it the weights of the run."""
    if T < 1:
        raise ConfigError(f"--T: time steps are a whole number >= 1, got {T}.")
    if run.model.input_space.temporal:
        raise ConfigError(
            f"--T: recordings of events are framed in {run.model.T} steps; leave it out."
        )
    recipe = run.recipe.model_copy(update={"model": {**run.recipe.model, "T": T}})
    try:
        model = build_model(recipe, run.data)
        restore_model(model, run.model.state_dict(), where=str(run.path))
    except (ConfigError, CheckpointError) as error:
        raise ConfigError(
            f"--T: the network has parts for its {run.model.T} steps ({error}); leave it out."
        ) from error
    return model.to(run.device)


def _reloaded(
    path: Path, T: int, data_root: Path | None, plugins: Plugins, device: str
) -> tuple[SNN, ImageSet]:
    run = Run.load(path, data_root=data_root, plugins=plugins, device=device)
    return _with_steps(run, T), run.data.test

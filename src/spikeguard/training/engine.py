"""Device, precision, gradient scaling, ranks and log of a run: the only module with Fabric.

Fabric is imported when an :class:`Engine` is created, because the import is slow. The training loop
and the attacks inside it both call the plain module under :meth:`Engine.autocast`, so that both
compute the same numbers. Only the loss of a step passes through the module that averages gradients
over ranks (torch's DistributedDataParallel, DDP), so an attack never exchanges any.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from spikeguard.system.launch_place import Place
from spikeguard.training.meeting import join
from spikeguard.training.world import ALONE, World

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Engine", "LogName", "joined", "require_log"]

LogName = Literal["tensorboard"]
TENSORBOARD = "tensorboard"  # folder of the events in a run folder

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class Engine:
    """One device and one precision: the first CUDA device if there is one, else the CPU.

    Args:
        precision: "32", "bf16" or "16".
        log: The run folder, for TensorBoard events in ``tensorboard/``; None logs nothing. Of
            several ranks the first one logs.
        world: The ranks that train together.

    Raises:
        ValueError: If precision is unknown, or "16" without a CUDA device.
    """

    def __init__(self, precision: str = "32", *, log: Path | None = None, world: World = ALONE):
        if precision not in _PRECISION:
            raise ValueError(f"precision is one of {', '.join(_PRECISION)}; got {precision!r}.")
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if precision == "16" and accelerator == "cpu":
            raise ValueError("precision '16' needs a CUDA device; use 'bf16' or '32' on a CPU.")
        self.world = world
        self._log = log = log if world.is_first else None
        loggers = [] if log is None else [_tensorboard(log)]
        self._fabric = _quiet_fabric(accelerator, _PRECISION[precision], loggers, world)
        self.device: torch.device = self._fabric.device

    def setup(self, model: nn.Module) -> None:
        """Move the model to the device, in place; build its optimiser afterwards."""
        if self.world.size == 1:
            self._fabric.setup_module(model)
        else:
            model.to(self.device)

    def reduced(self, loss: nn.Module) -> nn.Module:
        """Return a module whose gradients are the means over ranks, computed during the backward.

        Args:
            loss: A module that returns the loss of this rank, with the model inside.
        """
        return loss if self.world.size == 1 else self._fabric.setup_module(loss)

    def unreduced(self, loss: nn.Module, enabled: bool) -> AbstractContextManager[None]:
        """Return a context in which gradients of this rank add up, until a pass outside of it."""
        if self.world.size == 1 or not enabled:
            return nullcontext()
        return self._fabric.no_backward_sync(loss)  # type: ignore[arg-type]

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context in which forward passes run in the chosen precision."""
        return self._fabric.autocast()

    def backward(self, loss: Tensor) -> None:
        """Backpropagate a loss into the parameters, scaled if the precision requires it."""
        self._fabric.backward(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Undo the gradient scaling; call once per step, before the gradients are read."""
        self._precision.unscale_gradients(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Update the weights; under "16" the scaler skips a step whose gradients overflowed."""
        self._precision.optimizer_step(optimizer)

    @property
    def overflow_is_normal(self) -> bool:
        """Whether a non-finite gradient may be due to a loss scale that is still too large."""
        scaler = getattr(self._precision, "scaler", None)
        return scaler is not None and scaler.get_scale() > 1

    def state(self) -> dict[str, Any]:
        """Return the state of the gradient scaler; empty if there is no scaler."""
        return dict(self._precision.state_dict())

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by :meth:`state`."""
        self._precision.load_state_dict(dict(state))

    def log_from_start(self, history: Iterable[Mapping[str, Any]]) -> None:
        """Replace the events of an earlier start by the epochs that are known so far."""
        if self._log is None:
            return
        for earlier in (self._log / TENSORBOARD).glob("events.out.tfevents.*"):
            earlier.unlink()
        for line in history:
            self.log(line)

    def log(self, line: Mapping[str, Any]) -> None:
        """Log the numbers of one epoch, as in ``metrics.jsonl``; "terms/tgo" for nested ones."""
        if self._log is not None:
            self._fabric.log_dict(dict(_numbers(line)), step=int(line["epoch"]))
            self._fabric.logger.save()

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._fabric.logger.finalize("success")

    @property
    def _precision(self) -> Any:
        return self._fabric.strategy.precision


def require_log(log: LogName | None) -> None:
    """Reject a log that is unknown or whose package is not installed.

    Raises:
        ValueError: In both cases.
    """
    if log not in (None, TENSORBOARD):
        raise ValueError(f"log: 'tensorboard' or None, got {log!r}.")
    if log is not None and not any(map(find_spec, ("tensorboard", "tensorboardX"))):
        raise ValueError("log: tensorboard is not installed; run: pip install tensorboard")


def _tensorboard(run: Path) -> Any:
    """Return Fabric's logger of TensorBoard events in a run folder."""
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(root_dir=run, name=TENSORBOARD, version="")


def _numbers(line: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Return the numbers of a nested mapping by their path."""
    for name, value in line.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)


@contextmanager
def joined(place: Place | None) -> Iterator[World]:
    """Meet the ranks that torchrun or srun started, and part from them at the end of the block.

    Args:
        place: The place of this process; None if it was started alone.

    Raises:
        RankLost: If another rank fails or dies in the block.
        NotJoined: If rank 0 cannot be reached, or ranks are missing.
    """
    if place is None:
        yield ALONE
        return
    address, port = place.address, place.port
    if address is None or port is None:
        from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

        of_job = SLURMEnvironment(auto_requeue=False)
        address = of_job.main_address if address is None else address
        port = of_job.main_port if port is None else port
    with join(place, address, port) as world:
        yield world


def _devices(accelerator: str, world: World) -> dict[str, Any]:
    """Return Fabric's arguments for one device and ranks that have met already."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

    class Ranks(LightningEnvironment):  # a rank alone ignores what SLURM says about others
        """Each rank looks like a node with one device, so that SLURM may bind devices to ranks."""

        creates_processes_externally = True

        def __init__(self) -> None:
            super().__init__()
            self._global_rank, self._world_size = world.rank, world.size

        def set_global_rank(self, rank: int) -> None:
            pass

        def set_world_size(self, size: int) -> None:
            pass

        def local_rank(self) -> int:
            return 0

        def node_rank(self) -> int:
            return world.rank

    found: dict[str, Any] = {"devices": 1, "plugins": [Ranks()]}
    if world.size == 1:
        return found
    if accelerator == "cuda":
        shown = torch.cuda.device_count()
        found["devices"] = [world.local_rank if world.local_rank < shown else 0]
    # The learner keeps buffers equal. Older versions of torch have another name for it.
    known = signature(nn.parallel.DistributedDataParallel).parameters
    copied = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # A step may leave parameters out, such as frozen ones.
    options: dict[str, Any] = {"find_unused_parameters": True, copied: False}
    strategy = DDPStrategy(**options)
    return {**found, "num_nodes": world.size, "strategy": strategy}


def _quiet_fabric(accelerator: str, precision: str, loggers: list[Any], world: World) -> Fabric:
    """Build a Fabric without its log messages and warnings on precision and launchers."""
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.warnings import PossibleUserWarning

    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            fabric = Fabric(
                accelerator=accelerator,
                precision=precision,  # type: ignore[arg-type]
                loggers=loggers,
                **_devices(accelerator, world),
            )
            fabric.launch()
    finally:
        logger.setLevel(level)
    return fabric

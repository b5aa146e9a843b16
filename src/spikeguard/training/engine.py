"""Device, precision, gradient scaling and log of a run: the only module with Lightning Fabric.

Fabric is imported when an :class:`Engine` is created, because the import is slow. The training loop
and the attacks inside it both call the plain module under :meth:`Engine.autocast`, so that both
compute the same numbers.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Engine", "LogName", "require_log"]

LogName = Literal["tensorboard"]
TENSORBOARD = "tensorboard"  # folder of the events in a run folder

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class Engine:
    """One device and one precision: the first CUDA device if there is one, else the CPU.

    Args:
        precision: "32", "bf16" or "16".
        log: The run folder, for TensorBoard events in ``tensorboard/``; None logs nothing.

    Raises:
        ValueError: If precision is unknown, or "16" without a CUDA device.
    """

    def __init__(self, precision: str = "32", *, log: Path | None = None):
        if precision not in _PRECISION:
            raise ValueError(f"precision is one of {', '.join(_PRECISION)}; got {precision!r}.")
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if precision == "16" and accelerator == "cpu":
            raise ValueError("precision '16' needs a CUDA device; use 'bf16' or '32' on a CPU.")
        self._log = log
        loggers = [] if log is None else [_tensorboard(log)]
        self._fabric = _quiet_fabric(accelerator, _PRECISION[precision], loggers)
        self.device: torch.device = self._fabric.device

    def setup(self, model: nn.Module) -> None:
        """Move the model to the device, in place; build its optimiser afterwards."""
        self._fabric.setup_module(model)

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


def _quiet_fabric(accelerator: str, precision: str, loggers: list[Any]) -> Fabric:
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
                devices=1,
                precision=precision,  # type: ignore[arg-type]
                loggers=loggers,
            )
            fabric.launch()
    finally:
        logger.setLevel(level)
    return fabric

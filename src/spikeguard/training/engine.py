"""Device, precision and gradient scaling of a run: the only file that knows Lightning Fabric.

Fabric is imported when an :class:`Engine` is made, so that nothing else waits for it. The loop and
the attacks inside it call the bare module under :meth:`Engine.autocast`: both see the same numbers.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = ["Engine"]

_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


class Engine:
    """One device and one precision: the first CUDA device where there is one, else the CPU.

    Args:
        precision: "32", "bf16" or "16".

    Raises:
        ValueError: If precision is unknown, or "16" without a CUDA device.
    """

    def __init__(self, precision: str = "32"):
        if precision not in _PRECISION:
            raise ValueError(f"precision is one of {', '.join(_PRECISION)}; got {precision!r}.")
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
        if precision == "16" and accelerator == "cpu":
            raise ValueError("precision '16' needs a CUDA device; use 'bf16' or '32' on a CPU.")
        self._fabric = _quiet_fabric(accelerator, _PRECISION[precision])
        self.device: torch.device = self._fabric.device

    def setup(self, model: nn.Module) -> None:
        """Move the model to the device, in place; build its optimiser afterwards."""
        self._fabric.setup_module(model)

    def autocast(self) -> AbstractContextManager[None]:
        """Run forward passes in the chosen precision inside the block."""
        return self._fabric.autocast()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss to the parameters, scaled where the precision asks for it."""
        self._fabric.backward(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Turn scaled gradients back into true ones; once per step, before they are looked at."""
        self._precision.unscale_gradients(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the weights; under "16" the scaler skips a step whose gradients overflowed."""
        self._precision.optimizer_step(optimizer)

    @property
    def overflow_is_normal(self) -> bool:
        """Whether a non-finite gradient still only means that the loss scale is being found."""
        scaler = getattr(self._precision, "scaler", None)
        return scaler is not None and scaler.get_scale() > 1

    def state(self) -> dict[str, Any]:
        """Return the state of the gradient scaler; empty without one."""
        return dict(self._precision.state_dict())

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self._precision.load_state_dict(dict(state))

    @property
    def _precision(self) -> Any:
        return self._fabric.strategy.precision


def _quiet_fabric(accelerator: str, precision: str) -> Fabric:
    """Build a Fabric without its notes on precision and launchers, which are not for our users."""
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.warnings import PossibleUserWarning

    logger = logging.getLogger("lightning_fabric")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)  # type: ignore[arg-type]
            fabric.launch()
    finally:
        logger.setLevel(level)
    return fabric

"""The output of a spiking network at every time step, whose mean over time is the logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from spikeguard.models.snn import SNN

__all__ = ["collect_steps", "spiking_network"]


def spiking_network(model: nn.Module) -> SNN | None:
    """Return the first ``SNN`` inside a model, the model itself included; None without one."""
    return next((module for module in model.modules() if isinstance(module, SNN)), None)


@contextmanager
def collect_steps(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the output of every step of each forward pass inside the block.

    Yields:
        A list that gets one tensor [T, B, K] for each pass, differentiable like the logits [B, K],
        which are its mean over T.

    Raises:
        ValueError: If the model contains no ``SNN``.
    """
    network = spiking_network(model)
    if network is None:
        raise ValueError("collect_steps: the model contains no spikeguard.models network.")
    found: list[Tensor] = []

    def keep(stage: nn.Module, inputs: tuple[object, ...], output: Tensor) -> None:
        found.append(output.expand(network.T, *output.shape[1:]))

    handle = network.last_stage.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()

"""Gradients through a CUDA graph, for small batches dominated by kernel launch time.

The model's forward and backward kernels are recorded once and then launched together. The loss and
the checks of logits and gradient stay outside the graph and run every time.

Not yet run on a GPU; the CPU tests use a fake of torch's graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, is_adaptive
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import is_stochastic
from spikeguard.kernels.observation import is_observed, is_read
from spikeguard.kernels.selection import fusing

__all__ = ["KEPT", "LARGEST", "Graphed"]

LARGEST = 64  # largest batch; in larger ones the kernels take longer than their launches
KEPT = 8  # graphs kept; each holds the memory of one pass


@dataclass(frozen=True)
class Graphed:
    """Differentiate the model through a CUDA graph of its pass, where possible.

    One graph is recorded for each model, input shape, input precision and setting of the model's
    layers (including a swapped surrogate). Weights are read at every replay. Without a graph,
    ``inner`` runs on the model itself. This is the case on other devices, with more than 64
    samples, under autocast, in training mode, and for a model that is stochastic or has hooks or
    recorders.

    The pass must not read a tensor's value on the host, and must depend only on its input, its
    weights and its layers' public settings. To average, wrap it: ``EoT(16, Graphed())``.

    Args:
        inner: The gradient that differentiates the model, ``Backprop()`` or ``SwapSurrogate(...)``.

    Raises:
        ValueError: If ``inner`` keeps state from step to step.
        AttackError: At a call, if the model's pass cannot be recorded.
    """

    inner: Gradient = BACKPROP

    def __post_init__(self) -> None:
        if is_adaptive(self.inner):
            raise ValueError(
                f"Graphed: {type(self.inner).__name__} learns from step to step, and a recorded "
                "pass cannot change; write Graphed() or use that gradient alone."
            )
        object.__setattr__(self, "_graphs", [])  # not a field, so not a setting of the attack

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] and the input gradient."""
        if _can_record(model, x):
            model = _Replayed(model, self.__dict__["_graphs"])
        return self.inner(model, x, y, loss)


class _Graph(NamedTuple):
    model: nn.Module
    state: list[Any]
    replay: Callable[[Tensor], Tensor]


class _Replayed(nn.Module):
    """The model with its pass replayed; its layers can still be found and configured."""

    def __init__(self, model: nn.Module, graphs: list[_Graph]):
        super().__init__()
        self.model = model
        self._graphs = graphs

    def forward(self, x: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and x.requires_grad):
            logits: Tensor = self.model(x)
            return logits
        kept: Tensor = _Kept.apply(x)  # type: ignore[no-untyped-call]
        return self._graph(x).replay(kept).clone()  # the graph's own output is overwritten

    def _graph(self, x: Tensor) -> _Graph:
        state = _state(self.model, x)
        for graph in self._graphs:
            if graph.model is self.model and graph.state == state:
                return graph
        if len(self._graphs) == KEPT:
            del self._graphs[0]
        self._graphs.append(_Graph(self.model, state, _record(self.model, x)))
        return self._graphs[-1]


class _Kept(torch.autograd.Function):
    """The identity, with a copied gradient: the graph overwrites its own at the next replay."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN205
        return None if grad is None else grad.clone()


def _can_record(model: nn.Module, x: Tensor) -> bool:
    if not x.is_cuda or len(x) > LARGEST or torch.is_autocast_enabled("cuda"):
        return False
    for part in model.modules():
        if part.training or is_observed(part) or is_read(part):
            return False
        if getattr(part, "_recorders", None):
            return False
    return not is_stochastic(model)


def _state(model: nn.Module, x: Tensor) -> list[Any]:
    """Return everything a recorded graph depends on, to decide whether it can be reused."""
    tensors = [*model.parameters(), *model.buffers()]
    settings = [
        {k: v for k, v in vars(part).items() if not k.startswith("_") and _is_setting(v)}
        for part in model.modules()
    ]
    places = [tensor.data_ptr() for tensor in tensors]
    return [x.shape, x.dtype, x.device, fusing(x.device), places, settings]


def _is_setting(value: object) -> bool:
    """Whether a layer's attribute is a setting: a number, string, tuple or callable (surrogate)."""
    return isinstance(value, bool | int | float | str | tuple) or callable(value)


def _record(model: nn.Module, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Record the model's pass, forward and backward, for inputs like ``x``."""
    sample = x.detach().clone().requires_grad_()
    try:
        found = torch.cuda.make_graphed_callables(lambda image: model(image), (sample,))
    except RuntimeError as error:
        raise AttackError(
            "Graphed: the model's pass cannot be recorded as a CUDA graph "
            f"({str(error).splitlines()[0]}); use its inner gradient alone."
        ) from error
    return cast("Callable[[Tensor], Tensor]", found)

"""Diagnosis of a diverged training run: the loss term and the first layer that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from spikeguard.neurons.modes import record

__all__ = ["TrainingDiverged", "all_finite", "bad_term", "diagnose"]


class TrainingDiverged(RuntimeError):
    """A loss, gradient or weight is not finite; training stopped before the weight update.

    Attributes:
        epoch: Epoch of the error, from 1.
        step: Optimiser step within the epoch, from 1.
        term: The loss term that is not finite, or None.
        layer: The first layer whose potentials, weights or gradients are not finite, or None.
    """

    def __init__(self, message: str, *, epoch: int, step: int, term: str | None, layer: str | None):
        super().__init__(message)
        self.epoch, self.step, self.term, self.layer = epoch, step, term, layer


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether no tensor holds NaN or infinity; synchronises with the device once.

    A sum with such a value is not finite. A sum of finite values can overflow, so that only then
    the largest values decide; they take five times as long.
    """
    floating = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    if not floating:
        return True
    if math.isfinite(torch.stack([t.sum().double() for t in floating]).sum().item()):
        return True
    largest = torch.stack([t.abs().max().double() for t in floating])
    return math.isfinite(largest.sum().item())


def bad_term(losses: Mapping[str, float]) -> str | None:
    """Return the first loss term that is not finite."""
    return next((name for name, value in losses.items() if not math.isfinite(value)), None)


def diagnose(
    model: nn.Module, x: Tensor, why: str, *, epoch: int, step: int, term: str | None = None
) -> TrainingDiverged:
    """Locate the first value that is not finite and return the error to raise.

    Scans weights and gradients and runs one more forward pass.

    Args:
        model: The model at the time of the error, gradients included.
        x: The input images of the failed step.
        why: A clause for the error message, such as "a gradient is not finite".
        epoch: Epoch, from 1.
        step: Optimiser step within the epoch, from 1.
        term: The loss term that is not finite.
    """
    weight, gradient = _bad_weight(model), _bad_gradient(model)
    layer = None
    with suppress(RuntimeError):  # the potentials of a foreign neuron may be out of reach
        layer = _bad_layer(model, x)
    clauses = [f"training diverged in epoch {epoch}, step {step}: {why}"]
    if not all_finite([x]):
        clauses.append("the images are not finite")
    if weight:
        clauses.append(f"{weight} is not finite")
    if layer:
        clauses.append(f"the first layer with non-finite potentials or outputs is {layer}")
    if gradient:
        clauses.append(f"gradients are not finite from {gradient} backwards")
    first = layer or _owner(weight) or _owner(gradient)
    return TrainingDiverged("; ".join(clauses), epoch=epoch, step=step, term=term, layer=first)


def _bad_weight(model: nn.Module) -> str | None:
    """Return the name of the first parameter or statistic that is not finite."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return next((name for name, tensor in tensors if not all_finite([tensor])), None)


def _bad_gradient(model: nn.Module) -> str | None:
    """Return the last parameter with a non-finite gradient, the first one in the backward pass."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return next((name for name, grad in reversed(named) if not all_finite([grad])), None)


@torch.no_grad()
def _bad_layer(model: nn.Module, x: Tensor) -> str | None:
    """Run the model once more; return the first layer with a non-finite potential or output.

    For a spiking layer the potential is checked, because its output is always finite: NaN fires no
    spike and infinity fires one.
    """
    found: list[str] = []
    names = {m: name for name, m in model.named_modules() if next(m.children(), None) is None}
    with record(model) as trace:

        def watch(layer: nn.Module, _inputs: object, output: object) -> None:
            name = names[layer]
            values = trace[name].v if name in trace else output
            if isinstance(values, Tensor) and not all_finite([values]):
                found.append(name)

        handles = [layer.register_forward_hook(watch) for layer in names]
        try:
            model(x)
        finally:
            for handle in handles:
                handle.remove()
    return found[0] if found else None


def _owner(parameter: str | None) -> str | None:
    """Return the name of the layer that owns a parameter."""
    return parameter.rpartition(".")[0] if parameter else None

"""What went wrong when a number is no longer finite: which loss term, and where it began."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from spikeguard.neurons.modes import record

__all__ = ["TrainingDiverged", "all_finite", "bad_term", "diagnose"]


class TrainingDiverged(RuntimeError):
    """Training met a number that is not finite and stopped before it moved a weight by it.

    Attributes:
        epoch: Epoch in which it happened, from 1.
        step: Optimiser step within the epoch, from 1.
        term: The loss term that is not finite, or None.
        layer: The first layer whose potentials, weights or gradients are not finite, or None.
    """

    def __init__(self, message: str, *, epoch: int, step: int, term: str | None, layer: str | None):
        super().__init__(message)
        self.epoch, self.step, self.term, self.layer = epoch, step, term, layer


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity; one answer, so one wait for the device."""
    floating = [t.detach() for t in tensors if t.is_floating_point() and t.numel()]
    if not floating:
        return True
    largest = torch.stack([t.abs().max().double() for t in floating])
    return math.isfinite(largest.sum().item())


def bad_term(losses: Mapping[str, float]) -> str | None:
    """Return the first loss term that is not finite."""
    return next((name for name, value in losses.items() if not math.isfinite(value)), None)


def diagnose(
    model: nn.Module, x: Tensor, why: str, *, epoch: int, step: int, term: str | None = None
) -> TrainingDiverged:
    """Look for where the fault began, by a scan and one more forward pass; return the error.

    Args:
        model: As it was when the fault was seen, gradients included.
        x: The images it was shown.
        why: What was seen.
        epoch: Epoch, from 1.
        step: Optimiser step within the epoch, from 1.
        term: The loss term that is not finite.
    """
    weight, gradient, layer = _bad_weight(model), _bad_gradient(model), _bad_layer(model, x)
    clauses = [f"training diverged in epoch {epoch}, step {step}: {why}"]
    if not all_finite([x]):
        clauses.append("the images are not finite")
    if weight:
        clauses.append(f"{weight} is not finite")
    if layer:
        clauses.append(f"the first layer with potentials or outputs that are not is {layer}")
    if gradient:
        clauses.append(f"gradients are not finite from {gradient} backwards")
    first = layer or _owner(weight) or _owner(gradient)
    return TrainingDiverged("; ".join(clauses), epoch=epoch, step=step, term=term, layer=first)


def _bad_weight(model: nn.Module) -> str | None:
    """Return the first parameter or statistic that is not finite."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return next((name for name, tensor in tensors if not all_finite([tensor])), None)


def _bad_gradient(model: nn.Module) -> str | None:
    """Return the last parameter with a bad gradient: the backward pass begins at the output."""
    named = [(name, p.grad) for name, p in model.named_parameters() if p.grad is not None]
    return next((name for name, grad in reversed(named) if not all_finite([grad])), None)


@torch.no_grad()
def _bad_layer(model: nn.Module, x: Tensor) -> str | None:
    """Run the model once more; return the first layer with a potential or output not finite.

    The output of a spiking layer hides the fault, since NaN fires no spike and infinity fires one,
    so there the potential is looked at.
    """
    found: list[str] = []
    names = {m: name for name, m in model.named_modules() if next(m.children(), None) is None}
    with record(model) as trace:

        def watch(layer: nn.Module, _inputs: object, output: object) -> None:
            name = names[layer]
            seen = trace[name].v if name in trace else output
            if isinstance(seen, Tensor) and not all_finite([seen]):
                found.append(name)

        handles = [layer.register_forward_hook(watch) for layer in names]
        try:
            model(x)
        finally:
            for handle in handles:
                handle.remove()
    return found[0] if found else None


def _owner(parameter: str | None) -> str | None:
    """Return the name of the layer a parameter belongs to."""
    return parameter.rpartition(".")[0] if parameter else None

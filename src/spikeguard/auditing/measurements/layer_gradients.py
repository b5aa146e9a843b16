"""The gradient at the output of every layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spikeguard.attacks.losses import cross_entropy
from spikeguard.auditing.context import Context
from spikeguard.neurons.modes import spiking_layers
from spikeguard.neurons.trace import SpikingLayer

__all__ = ["layer_gradients", "watched"]


def layer_gradients(
    context: Context, index: Tensor, outputs: dict[str, Tensor]
) -> Mapping[str, Tensor | None]:
    """Return the gradient of the loss at the output of every watched layer, in network order."""
    outputs.clear()
    with context.searching(index) as (x, y), torch.enable_grad():
        loss = cross_entropy(context.logits_of(x.detach().clone().requires_grad_()), y).sum()
        able = {name: out for name, out in outputs.items() if out.requires_grad}
        grads: tuple[Tensor | None, ...] = ()
        if loss.requires_grad and able:
            grads = torch.autograd.grad(loss, list(able.values()), allow_unused=True)
    found: dict[str, Tensor | None] = dict.fromkeys(outputs)
    return found | dict(zip(able, grads, strict=False))


@contextmanager
def watched(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of the spiking layers, or of layers with weights if no layer spikes.

    For a layer that is called once per step, the output of the last step is kept.
    """
    layers = spiking_layers(model).items()
    named = [(name, _module(layer)) for name, layer in layers]
    named = named or [
        (n, m)
        for n, m in model.named_modules()
        if n and not list(m.children()) and list(m.parameters(recurse=False))
    ]
    outputs: dict[str, Tensor] = {}
    handles = []
    for name, module in named:

        def keep(module: nn.Module, inputs: object, output: object, name: str = name) -> None:
            if isinstance(output, tuple) and output:  # spikes, then potentials
                output = output[0]
            if isinstance(output, Tensor):
                outputs.pop(name, None)
                outputs[name] = output

        handles.append(module.register_forward_hook(keep))
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _module(layer: SpikingLayer) -> nn.Module:
    """Return the module whose output is the spikes of a spiking layer."""
    module = layer if isinstance(layer, nn.Module) else getattr(layer, "module", None)
    assert isinstance(module, nn.Module)
    return module

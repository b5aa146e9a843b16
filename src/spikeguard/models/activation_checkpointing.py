"""Activation checkpointing: layers run again in the backward pass instead of keeping their values.

Only the input of a group of layers is kept. The second run is the first one again, bit for bit:
modes, random draws (of modules that draw from torch's own generator too), surrogates and kernel are
those of the first, and batch normalisation does not count its batch twice.

Source: Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost", 2016
(arXiv:1604.06174); torch.utils.checkpoint runs and compares the two passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from spikeguard.kernels.selection import default_kernel, use_kernel
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.spike_marks import are_spikes, mark_spikes
from spikeguard.rng import Randomness, RandomSource, SampleStreams
from spikeguard.system.swapping import swapped

__all__ = ["CAN_CHECKPOINT", "checkpointed", "run_checkpointed"]

CAN_CHECKPOINT = "checkpointing"  # attribute of stages that can, and whether they do
_SWAPPED = ("training", "attacked", "averaged", "surrogate")  # of a module, where it has them


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Keep only the inputs of blocks, and of every second spiking layer elsewhere, in the block.

    Gradients, draws and batch statistics are the same as without, bit for bit; a pass with gradient
    computes the layers a second time. Passes that record potentials, and those whose backward pass
    follows a rule (BPTR, HART, ASSG and so on), keep everything as before.

    Args:
        model: An ``SNN``, or a module that contains one.

    Raises:
        ValueError: If the model has no such stages.

    Example:
        >>> with checkpointed(model):                                  # doctest: +SKIP
        ...     train(model, data, out="runs/small-memory")
    """
    stages = [each for each in model.modules() if _is_stage(each)]
    inner = {id(m) for stage in stages for m in stage.modules() if m is not stage}
    outer = [stage for stage in stages if id(stage) not in inner]
    if not outer:
        raise ValueError(
            f"checkpointed: {type(model).__name__} is no network of spikeguard.models, whose "
            "blocks can be run again; leave train.checkpoint_activations out."
        )
    with swapped(outer, CAN_CHECKPOINT, True):
        yield


def _is_stage(module: nn.Module) -> bool:
    return isinstance(getattr(module, CAN_CHECKPOINT, None), bool)


def run_checkpointed(
    layers: Sequence[nn.Module], run: Callable[[Tensor], Tensor], x: Tensor
) -> Tensor:
    """Return ``run(x)``, which runs ``layers``; only ``x`` is kept for its backward pass."""
    modules = [module for layer in layers for module in layer.modules()]
    neurons = [module for module in modules if isinstance(module, Neuron)]
    observed = any(neuron._recorders or neuron.rule is not None for neuron in neurons)
    if not torch.is_grad_enabled() or observed:
        return run(x)
    marked = are_spikes(x)

    def again(x: Tensor) -> Tensor:
        return run(mark_spikes(x) if marked else x)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[Any]]:
        return nullcontext(), _AsBefore(modules, x.device)

    found: Tensor = checkpoint(
        again, x, use_reentrant=False, preserve_rng_state=True, context_fn=contexts
    )
    return found


class _AsBefore:
    """Puts modules back into their present state for every second run; may be entered repeatedly.

    Args:
        modules: The layers that run again, with all modules inside them.
        device: Device of their inputs.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device):
        self._state: list[tuple[Any, str, Any]] = [
            (m, name, getattr(m, name)) for m in modules for name in _SWAPPED if hasattr(m, name)
        ]
        parameters = {p for module in modules for p in module.parameters(recurse=False)}
        self._state += [(p, "requires_grad", p.requires_grad) for p in parameters]
        self._norms = [m for m in modules if isinstance(m, _BatchNorm) and m.training]
        held = (getattr(module, "random", None) for module in modules)
        self._random = [source for source in held if isinstance(source, RandomSource)]
        self._sources = [source.current(device) for source in self._random]
        self._drawn = {id(each): _copy(each) for each in self._sources}
        self._kernel = default_kernel(device)
        self._open: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        for owner, name, value in self._state:
            stack.enter_context(swapped([owner], name, value))
        for norm in self._norms:  # in the first run's branch, with statistics to throw away
            held = {name: t if t is None else t.clone() for name, t in norm._buffers.items()}
            stack.enter_context(swapped([norm], "_buffers", held))
        drawn = {number: _copy(each) for number, each in self._drawn.items()}
        for source, used in zip(self._random, self._sources, strict=True):
            stack.enter_context(swapped([source], "bound", drawn[id(used)]))
        stack.enter_context(use_kernel(self._kernel))
        self._open.append(stack)

    def __exit__(self, *error: Any) -> None:
        self._open.pop().__exit__(*error)


def _copy(source: Randomness) -> Randomness:
    """Return a source that draws what this one would draw next."""
    if isinstance(source, SampleStreams):
        return source.take(torch.arange(len(source)))
    same = torch.Generator(device=source.device)
    same.set_state(source.get_state())
    return same

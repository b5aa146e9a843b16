"""Wrappers around a foreign network: torch.compile, DataParallel and the like."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

__all__ = ["plainly", "unwrapped"]

_INNER = {
    "OptimizedModule": "_orig_mod",  # torch.compile
    "DataParallel": "module",
    "DistributedDataParallel": "module",
}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside the wrappers of torch.compile and of data parallelism.

    Raises:
        ValueError: If a layer inside the network is wrapped for data parallelism: it would divide
            an input over time steps.
    """
    while (inner := _inner(model)) is not None:
        model = inner
    for name, module in model.named_modules():
        if _inner(module) is not None and not _compiled(module):
            raise ValueError(
                f"foreign: {name} is wrapped by {type(module).__name__}, which divides its input; "
                f"pass the model with {name}.module in its place."
            )
    return model


def plainly(model: nn.Module) -> AbstractContextManager[Any]:
    """Return a context in which compiled parts of the network run as they are written.

    Compiled code does not see exchanged surrogates, and may differ by rounding.
    """
    return torch.compiler.set_stance("force_eager") if _holds_compiled(model) else nullcontext()


def _holds_compiled(model: nn.Module) -> bool:
    return any(map(_compiled, model.modules()))


def _compiled(module: nn.Module) -> bool:
    by_method = getattr(module, "_compiled_call_impl", None) is not None  # module.compile()
    return by_method or type(module).__name__ == "OptimizedModule"


def _inner(module: nn.Module) -> nn.Module | None:
    """Return the network in a wrapper; None for a module that is none."""
    kind = type(module)
    if not kind.__module__.startswith("torch.") or kind.__name__ not in _INNER:
        return None
    found: nn.Module = getattr(module, _INNER[kind.__name__])
    return found

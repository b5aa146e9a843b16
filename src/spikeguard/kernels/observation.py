"""Whether somebody observes a layer: hooks, parametrizations and replaced ``forward`` methods."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module

__all__ = ["is_observed"]


def is_observed(module: nn.Module) -> bool:
    """Whether a call of ``module`` runs code besides the ``forward`` of its class.

    An observed layer is called as torch would call it; no other layer or kernel does its work. The
    code is a hook on the module (forward or backward, before or after; pruning and the old
    ``weight_norm`` are such hooks), a hook on all modules, a parametrization, or a ``forward``
    assigned to the instance. Type checks are left to the caller: whoever replaces a layer knows its
    class. ``record`` does not count, because a kernel shows it what the layers would.
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
        or "forward" in module.__dict__
        or "parametrizations" in module._modules
    )

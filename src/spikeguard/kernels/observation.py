"""The check whether a layer is observed: by a hook, a parametrization or a replaced ``forward``."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module

__all__ = ["is_observed"]


def is_observed(module: nn.Module) -> bool:
    """Whether a call of ``module`` runs other code than the ``forward`` of its class.

    This code is a hook on the module (forward or backward, before or after; pruning and the old
    ``weight_norm`` are such hooks), a hook on all modules, a parametrization, or a ``forward``
    assigned to the instance. An observed layer must be called as a module: no kernel may compute
    its result. The class of the module is not checked; callers check it themselves. Recorders do
    not count, because kernels pass them the same currents, potentials and spikes.
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

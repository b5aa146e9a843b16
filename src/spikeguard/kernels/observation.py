"""The check whether a layer is observed: by a hook, a parametrization or a replaced ``forward``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from torch.nn.modules import module as torch_module

from spikeguard.kernels.batch_statistics import is_shared

__all__ = ["Reader", "is_observed", "is_read"]


class Reader:
    """Base of forward hooks and forward pre-hooks that only read tensors, such as counters.

    A reader returns None, changes nothing and lives in a pass without gradients. Layers keep their
    fast kernels under it. Only spiking layers, convolutions and linear layers are always called as
    modules, so only their hooks are sure to be called.

    Attributes:
        unpooled: A spiking layer must return all its spikes, not their means over the average
            pooling that follows.
    """

    unpooled = False


def is_observed(module: nn.Module) -> bool:
    """Whether a call of ``module`` runs other code than the ``forward`` of its class.

    This code is a hook on the module (forward or backward, before or after; pruning and the old
    ``weight_norm`` are such hooks), a hook on all modules, a parametrization, or a ``forward``
    assigned to the instance. An observed layer must be called as a module: no kernel may compute
    its result. The class of the module is not checked; callers check it themselves. Recorders and
    readers do not count, because kernels pass them the same tensors. Neither does a normalisation
    that shares the statistics of batches, where it uses its running statistics.
    """
    return bool(
        _changed_by(module._forward_hooks)
        or _changed_by(module._forward_pre_hooks)
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_forward_pre_hooks
        or torch_module._global_backward_hooks
        or torch_module._global_backward_pre_hooks
        or _is_replaced(module)
        or "parametrizations" in module._modules
    )


def _is_replaced(module: nn.Module) -> bool:
    """Whether an assigned ``forward`` computes something else than that of the class."""
    if "forward" not in module.__dict__:
        return False
    of_the_batch = module.training or getattr(module, "running_mean", None) is None
    return of_the_batch or not is_shared(module)


def is_read(module: nn.Module, *, unpooled: bool = False) -> bool:
    """Whether a reader is registered on ``module``; if ``unpooled``, one that needs all spikes."""
    hooks: list[object] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    return any(isinstance(hook, Reader) and (hook.unpooled or not unpooled) for hook in hooks)


def _changed_by(hooks: Mapping[int, object]) -> bool:
    return bool(hooks) and not all(isinstance(hook, Reader) for hook in hooks.values())

"""Test that no layer behaves as in training during a pass in evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

__all__ = ["TrainingModeError", "evaluation_mode_required"]


class TrainingModeError(Exception):
    """A layer is in training mode: an error that the adapters of foreign models do not catch."""


@contextmanager
def evaluation_mode_required(model: nn.Module) -> Iterator[None]:
    """Raise TrainingModeError when batch norm or dropout runs in training mode in the block.

    Batch norm without running statistics, which normalises by the batch in both modes, counts too.
    """

    def require_evaluation(module: nn.Module, given: object) -> None:
        if module.training:
            raise TrainingModeError(
                f"a {type(module).__name__} runs in training mode although the model is in "
                "evaluation mode; switch no mode inside forward."
            )

        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise TrainingModeError(
                f"a {type(module).__name__} normalises by the statistics of the batch "
                "(track_running_stats=False), so the logits of an image depend on the others; "
                "train with running statistics."
            )

    watched = [m for m in model.modules() if isinstance(m, _BatchNorm | _DropoutNd)]
    handles = [m.register_forward_pre_hook(require_evaluation) for m in watched]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

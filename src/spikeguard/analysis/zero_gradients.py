"""Exact zeros in the gradient of the loss, counted at the input of every operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify, frozen
from spikeguard.data.images import Data, as_image_set
from spikeguard.neurons.base import Neuron
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["OperationGradient", "operation_gradients"]


@dataclass
class OperationGradient:
    """The gradient of the loss with respect to the input of one operation, over all images.

    Attributes:
        kind: Class of the operation, such as "Conv2d".
        entries: Number of entries of the gradient.
        zeros: Entries that are exactly 0.
        norms: Sum of the Euclidean norms of all images' gradients.
        images: Number of images.
    """

    kind: str
    entries: int = 0
    zeros: int = 0
    norms: float = 0.0
    images: int = 0

    @property
    def zero_share(self) -> float:
        """Share of the gradient that is exactly 0, in [0, 1]."""
        return self.zeros / max(1, self.entries)

    @property
    def norm(self) -> float:
        """Mean norm of an image's gradient."""
        return self.norms / max(1, self.images)


def operation_gradients(
    model: nn.Module,
    data: Data,
    *,
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
) -> dict[str, OperationGradient]:
    """Measure the gradient of the loss at the input of every operation, in evaluation mode.

    An operation is a module without child modules, such as a convolution, a batch normalisation, a
    spiking layer or a pooling; the first entry is "input", the image itself. Parameters get no
    gradient and nothing is changed. A step that is computed once counts as T equal steps.

    Args:
        model: A classifier ``model(x [B, ...]) -> logits [B, K]``.
        data: Images, or a pair (x, y).
        limit: Number of images to use, the first ones; None uses all.
        batch_size: Images per batch.
        seed: Seed of the noise of a stochastic model.
        loss: Per-sample loss ``(logits, y) -> [B]``.

    Returns:
        The gradients by operation name, in network order.

    Source: Fig. 1 and 3 of the gradient-sparsity-trail paper (arXiv:2509.23762).
    """
    images = as_image_set(data)
    n = len(images) if limit is None else min(limit, len(images))
    operations = {
        name: module
        for name, module in model.named_modules()
        if name and not any(True for _ in module.children())
    }
    found = {"input": OperationGradient("image")}
    found |= {name: OperationGradient(type(module).__name__) for name, module in operations.items()}

    for start in range(0, n, batch_size):
        index = torch.arange(start, min(start + batch_size, n))
        x, y = images.batch(index)
        x = x.clone().requires_grad_()

        hooks = [
            module.register_forward_pre_hook(partial(_enter, found[name], len(index)))
            for name, module in operations.items()
        ]
        try:
            streams = SampleStreams(key(seed, "gradients"), index)
            with frozen(model), randomness(model, streams), torch.enable_grad():
                x.register_hook(partial(_look, found["input"], len(index)))  # type: ignore[no-untyped-call]
                loss(classify(model, x, y), y).sum().backward()  # type: ignore[no-untyped-call]
        finally:
            for hook in hooks:
                hook.remove()
    return {name: seen for name, seen in found.items() if seen.images}


def _enter(
    seen: OperationGradient, images: int, module: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    """Register a hook on the gradient at the input of an operation."""
    if inputs and isinstance(inputs[0], Tensor) and inputs[0].requires_grad:
        folded = partial(_look, seen, images)
        timed = isinstance(module, Neuron)  # only neurons take [T, images, ...]
        inputs[0].register_hook(lambda grad: folded(grad.flatten(0, 1) if timed else grad))  # type: ignore[no-untyped-call]


def _look(seen: OperationGradient, images: int, grad: Tensor) -> None:
    """Add a gradient [images, ...] or [T x images, ...] to the counts."""
    rows = grad.reshape(-1, images, grad[0].numel())
    seen.entries += grad.numel()
    seen.zeros += int((grad == 0).sum())
    seen.norms += float(rows.double().square().sum((0, 2)).sqrt().sum())
    seen.images += images

"""Zeros and norms of the loss gradient, by the input of every operation and by every weight."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from spikeguard.analysis.base import Batch, batches
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify, frozen
from spikeguard.data.images import Data
from spikeguard.neurons.modes import spiking_layers
from spikeguard.rng import randomness
from spikeguard.system.swapping import swapped

__all__ = ["NEAR", "OperationGradient", "operation_gradients", "weight_gradients"]

NEAR = 1e-3  # fraction of an image's largest entry up to which an entry counts as near zero


@dataclass
class OperationGradient:
    """The gradient of the loss with respect to the input of one operation, or to one weight.

    Attributes:
        kind: Class of the operation, such as "Conv2d".
        role: "image", "spiking", "pooling", "linear" (it has a weight matrix) or "other".
        entries: Number of entries of the gradient.
        zeros: Entries that are exactly 0.
        near: Entries of at most a fraction of the image's largest one; zeros are among them.
        norms: Sum of the Euclidean norms of all images' gradients.
        images: Number of images.
        by_image: Share of zeros, share near zero and norm of every image [images, 3], float64, one
            tensor a batch.
    """

    kind: str
    entries: int = 0
    zeros: int = 0
    norms: float = 0.0
    images: int = 0
    near: int = 0
    role: str = "other"
    by_image: list[Tensor] = field(default_factory=list)

    @property
    def zero_share(self) -> float:
        """Share of the gradient that is exactly 0, in [0, 1]."""
        return self.zeros / max(1, self.entries)

    @property
    def near_share(self) -> float:
        """Share of the gradient that is 0 or near it, in [0, 1]."""
        return self.near / max(1, self.entries)

    @property
    def norm(self) -> float:
        """Mean norm of an image's gradient."""
        return self.norms / max(1, self.images)

    def add(self, counts: Tensor) -> None:
        """Add a batch of images: zeros, entries near zero, entries, squared norm [4, images]."""
        zeros, near, entries, squares = counts
        norms = squares.sqrt()
        self.zeros += int(zeros.sum())
        self.near += int(near.sum())
        self.entries += int(entries.sum())
        self.norms += float(norms.sum())
        self.images += len(norms)
        self.by_image.append(torch.stack([zeros / entries, near / entries, norms], 1).cpu())


def operation_gradients(
    model: nn.Module,
    data: Data,
    *,
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    near: float = NEAR,
) -> dict[str, OperationGradient]:
    """Measure the gradient of the loss at the input of every operation, in evaluation mode.

    An operation is a spiking layer, or a module without child modules, such as a convolution, a
    batch normalisation or a pooling; the first entry is "input", the image itself. An operation
    whose input has no axis of images is left out. Parameters get no gradient and nothing is
    changed. A step that is computed once counts as T equal steps.

    Args:
        model: A classifier ``model(x [B, ...]) -> logits [B, K]``.
        data: Images, or a pair (x, y).
        limit: Number of images to use, the first ones; None uses all.
        batch_size: Images per batch.
        seed: Seed of the noise of a stochastic model.
        loss: Per-sample loss ``(logits, y) -> [B]``.
        near: Entries count as near zero up to this fraction of the image's largest entry in the
            same call of the operation.

    Returns:
        The gradients by operation name, in network order.

    Source: Fig. 1 and 3 of the gradient-sparsity-trail paper (arXiv:2509.23762).
    """
    operations = _operations(model)
    found = {"input": OperationGradient("image", role="image")}
    found |= {
        name: OperationGradient(type(module).__name__, role=role)
        for name, (module, role) in operations.items()
    }
    T = int(getattr(model, "T", 1))
    for whole in batches(model, data, limit=limit, batch_size=batch_size):
        for batch in _unlike(whole, T):
            x, y = batch.x.requires_grad_(), batch.y
            counts: dict[str, Tensor] = {}
            looks = {name: partial(_look, counts, name, len(y), T, near) for name in found}
            hooks = [
                module.register_forward_pre_hook(partial(_enter, looks[name]))
                for name, (module, _) in operations.items()
            ]
            try:
                noise = randomness(model, batch.streams(seed, "noise"))
                with frozen(model), noise, torch.enable_grad():
                    x.register_hook(looks["input"])  # type: ignore[no-untyped-call]
                    loss(classify(model, x, y), y).sum().backward()  # type: ignore[no-untyped-call]
            finally:
                for hook in hooks:
                    hook.remove()
            for name, counted in counts.items():
                found[name].add(counted)
    return {name: seen for name, seen in found.items() if seen.images}


def weight_gradients(
    model: nn.Module,
    data: Data,
    *,
    limit: int | None = None,
    seed: int = 0,
    loss: Callable[[Tensor, Tensor], Tensor] = cross_entropy,
    near: float = NEAR,
) -> dict[str, OperationGradient]:
    """Measure the gradient of each image's loss with respect to every weight, in evaluation mode.

    A weight is a parameter of two dimensions or more. Images are passed one at a time, with the
    noise that they have in :func:`operation_gradients`. Nothing is changed.

    Args:
        model: A classifier ``model(x [B, ...]) -> logits [B, K]``.
        data: Images, or a pair (x, y).
        limit: Number of images to use, the first ones; None uses all.
        seed: Seed of the noise of a stochastic model.
        loss: Per-sample loss ``(logits, y) -> [B]``.
        near: See :func:`operation_gradients`.

    Returns:
        The gradients by parameter name, in network order; empty without weights.

    Source: Theorems 2 and 3 of the gradient-sparsity-trail paper (arXiv:2509.23762).
    """
    weights = {name: p for name, p in model.named_parameters() if p.ndim > 1}
    if not weights:
        return {}
    owner = {name: model.get_submodule(name.rpartition(".")[0]) for name in weights}
    found = {name: OperationGradient(type(owner[name]).__name__, role="weight") for name in weights}
    for batch in batches(model, data, limit=limit, batch_size=1):
        trained = swapped(weights.values(), "requires_grad", True)
        noise = randomness(model, batch.streams(seed, "noise"))
        with frozen(model), trained, noise, torch.enable_grad():
            grads = torch.autograd.grad(
                loss(classify(model, batch.x, batch.y), batch.y).sum(),
                list(weights.values()),
                allow_unused=True,
                materialize_grads=True,
            )
        for seen, grad in zip(found.values(), grads, strict=True):
            seen.add(_counts(grad.reshape(1, 1, -1), near))
    return found


def _operations(model: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Return every operation with its role; modules inside a spiking layer belong to it."""
    spiking = spiking_layers(model)
    found = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{layer}.") for layer in spiking)
        childless = not any(True for _ in module.children())
        if name in spiking:
            found[name] = module, "spiking"
        elif name and childless and not inside:
            weighted = any(p.ndim > 1 for p in module.parameters(recurse=False))
            pooling = "pool" in type(module).__name__.lower()
            found[name] = module, "pooling" if pooling else "linear" if weighted else "other"
    return found


def _unlike(batch: Batch, T: int) -> list[Batch]:
    """Return a batch in parts whose number of images is not T, unless it is 1.

    In [T, images, ...] and [images, channels, ...] the axis of images can then be told.
    """
    if not len(batch.y) == T > 1:
        return [batch]
    cuts = (slice(T - 1), slice(T - 1, T))
    return [Batch(batch.index[cut], batch.x[cut].clone(), batch.y[cut]) for cut in cuts]


def _enter(look: Callable[[Tensor], None], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Register a hook on the gradient at the input of an operation."""
    if inputs and isinstance(inputs[0], Tensor) and inputs[0].requires_grad:
        inputs[0].register_hook(look)  # type: ignore[no-untyped-call]


def _look(
    counts: dict[str, Tensor], name: str, images: int, T: int, near: float, grad: Tensor
) -> None:
    """Count a gradient; a further call of the operation is added to the first.

    A gradient is [images, ...], [T x images, ...], [T, images, ...] or, of a step that is computed
    once, [1, images, ...]; another one is left out.
    """
    steps = len(grad) in (1, T) and grad.ndim > 1 and grad.shape[1] == images
    timed = steps and len(grad) != images
    if len(grad) % images and not timed:
        return
    rows = grad.flatten(0, 1) if timed else grad
    counted = _counts(rows.reshape(-1, images, rows[0].numel()), near)
    counts[name] = counts[name] + counted if name in counts else counted


def _counts(rows: Tensor, near: float) -> Tensor:
    """Return zeros, entries near zero, entries and squared norm of every image [4, images].

    Args:
        rows: Gradients [calls, images, entries].
        near: Fraction of an image's largest entry.
    """
    size = rows.abs()
    small = (size <= near * size.amax((0, 2), keepdim=True)).sum((0, 2))
    entries = torch.full_like(small, rows.shape[0] * rows.shape[2])
    squares = rows.double().square().sum((0, 2))
    return torch.stack(
        [(rows == 0).sum((0, 2)).double(), small.double(), entries.double(), squares]
    )

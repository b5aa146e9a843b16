"""Jacobians of the logits through the surrogate, and their spectral norms by power iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikeguard.attacks.model_access import classify, frozen
from spikeguard.rng import Randomness, randomness, stream

__all__ = ["SpectralNorms", "jacobians", "spectral_norms"]


def jacobians(model: nn.Module, x: Tensor, y: Tensor, noise: Randomness) -> Tensor:
    r"""Return the Jacobian of each image's logits with respect to the image.

    The network is in evaluation mode, differentiated with its own surrogate and left unchanged. All
    rows belong to one forward pass, and so to one draw of the noise. One backward pass computes one
    row: the gradient of a surrogate has no gradient, so there is no product :math:`J v`.

    Args:
        model: The network.
        x: Images [B, ...] of n pixels.
        y: Labels [B], which only have to be classes of the network.
        noise: Random numbers of a stochastic network.

    Returns:
        Jacobians [B, K, n].

    Source: TGO (arXiv:2602.20548) Eq. 11.
    """
    x = x.detach().clone().requires_grad_()
    with frozen(model), randomness(model, noise), torch.enable_grad():
        sums = classify(model, x, y).sum(0)
        last = len(sums) - 1
        rows = [
            torch.autograd.grad(each, x, retain_graph=k < last)[0].flatten(1)
            for k, each in enumerate(sums)
        ]
    return torch.stack(rows, 1)


@dataclass(frozen=True, eq=False)
class SpectralNorms:
    """Spectral norms of matrices, each [B], float64.

    Attributes:
        norm: The largest singular value found.
        change: Relative change of its square in the last step.
        residual: :math:`|G u - s^2 u| / s^2` for :math:`G = J J^T`. The interval of this relative
            half-width around s^2 contains the square of a singular value.
        converged: Whether change and residual are within the tolerances, bool.
    """

    norm: Tensor
    change: Tensor
    residual: Tensor
    converged: Tensor


def spectral_norms(
    matrices: Tensor, *, steps: int = 500, tolerance: float = 1e-6, residual: float = 1e-3
) -> SpectralNorms:
    r"""Return the spectral norm of every matrix by power iteration on :math:`J J^T`, in float64.

    .. math:: u \leftarrow J J^T u / |J J^T u|, \qquad |J|_2 = \sqrt{u^T J J^T u}

    The iteration of a matrix stops once it has converged. It starts from a fixed random vector. A
    matrix of zeros has norm 0 and converges at once.

    Args:
        matrices: Matrices [B, K, n].
        steps: Largest number of steps, >= 1.
        tolerance: Relative change of the squared norm, > 0.
        residual: Relative residual, > 0.

    Raises:
        ValueError: If an argument is out of range, or a matrix is not finite.

    Example:
        >>> found = spectral_norms(torch.tensor([[[3.0, 0.0], [0.0, 2.0]]]))
        >>> round(found.norm.item(), 6), found.converged.item()
        (3.0, True)
    """
    if steps < 1 or not tolerance > 0 or not residual > 0:
        raise ValueError(
            f"spectral_norms: steps >= 1, tolerance > 0 and residual > 0, got {steps}, "
            f"{tolerance:g} and {residual:g}."
        )
    if not bool(torch.isfinite(matrices).all()):
        raise ValueError("spectral_norms: a matrix is not finite.")
    wide = matrices.double()
    gram = wide @ wide.mT
    scale = gram.diagonal(dim1=1, dim2=2).sum(1)  # the trace; the largest eigenvalue is below it
    done = scale == 0
    gram = gram / torch.where(done, 1.0, scale)[:, None, None]
    start = torch.randn(gram.shape[1], generator=stream(0, "power iteration"), dtype=torch.float64)
    u = (start / start.norm()).to(gram.device).expand(len(gram), -1)
    image = torch.einsum("bij,bj->bi", gram, u)
    value = (u * image).sum(1)
    change, rest = torch.zeros_like(value), torch.zeros_like(value)
    change[~done], rest[~done] = torch.inf, torch.inf
    for _ in range(steps):
        if bool(done.all()):
            break
        size = image.norm(dim=1, keepdim=True)
        new = torch.where(size > 0, image / torch.where(size > 0, size, 1.0), u)
        image_new = torch.einsum("bij,bj->bi", gram, new)
        value_new = (new * image_new).sum(1)
        safe = value_new.clamp_min(1e-300)
        change_new = (value_new - value).abs() / safe
        rest_new = (image_new - value_new[:, None] * new).norm(dim=1) / safe
        keep = done[:, None]
        u, image = torch.where(keep, u, new), torch.where(keep, image, image_new)
        value = torch.where(done, value, value_new)
        change = torch.where(done, change, change_new)
        rest = torch.where(done, rest, rest_new)
        done = done | ((change <= tolerance) & (rest <= residual))
    return SpectralNorms((value * scale).sqrt(), change, rest, done)

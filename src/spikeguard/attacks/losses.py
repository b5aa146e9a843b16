"""Losses that attacks maximise: cross-entropy, margin, DLR, and the targeted losses.

The difference of logits ratio (DLR) divides a margin by a spread of the same logits. It is
invariant to a shift and to a positive factor, so a model cannot hide its gradient by scaling its
logits. The formula is undefined where the spread is zero. With the readout "rate" this is common:
rates are multiples of 1/T and tie. Those rows use the plain margin, which has no denominator. The
readout "logits", a current averaged over time, seldom ties but is piecewise constant too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "ALL_LOSSES",
    "LOSSES",
    "Loss",
    "TARGETED_LOSSES",
    "TargetedLoss",
    "cross_entropy",
    "dlr",
    "margin",
    "targeted_dlr",
    "targeted_margin",
]

Loss = Callable[[Tensor, Tensor], Tensor]
TargetedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

_RESOLUTION = 1e-5  # fraction of the largest |logit| below which two logits count as equal


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each sample [B]: -log softmax(z)_y."""
    return functional.cross_entropy(_at_least_float32(logits), y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{i != y} z_i - z_y for each sample [B]; positive means misclassified.

    Source: Carlini and Wagner, "Towards evaluating the robustness of neural networks", 2017.
    """
    logits = _at_least_float32(logits)
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.masked_fill(functional.one_hot(y, logits.shape[1]).bool(), -torch.inf)
    return other.amax(1) - own


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    r"""Return the difference of logits ratio of each sample [B]; positive means misclassified.

    .. math::
        \frac{\max_{i \ne y} z_i - z_y}{z_{(1)} - z_{(3)}}, \quad z_{(1)} \ge z_{(2)} \ge \dots

    The value is in [-1, 0] where the model is right. The margin replaces it in rows where the three
    largest logits tie, where the true class ranks third (the ratio is then always 1, with gradient
    0), and with fewer than three classes.

    Args:
        logits: Logits [B, K].
        y: True classes [B].

    Source: Croce and Hein, ICML 2020 (arXiv:2003.01690), Eq. 6.
    """
    plain = margin(logits, y)
    if logits.shape[1] < 3:
        return plain
    logits = _at_least_float32(logits)
    top = logits.topk(3, dim=1).values
    own = logits.gather(1, y[:, None])[:, 0]
    constant = (own == top[:, 2]) & (own < top[:, 0])
    return _ratio(plain, top[:, 0] - top[:, 2], logits, constant)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    r"""Return the targeted difference of logits ratio of each sample [B].

    .. math:: \frac{z_t - z_y}{z_{(1)} - \frac12 (z_{(3)} + z_{(4)})}

    The margin to the target replaces it in rows where the four largest logits tie, and with fewer
    than four classes.

    Args:
        logits: Logits [B, K].
        y: True classes [B].
        target: Target classes [B], different from ``y``.

    Source: Croce and Hein, ICML 2020 (arXiv:2003.01690), Eq. 7.
    """
    plain = targeted_margin(logits, y, target)
    if logits.shape[1] < 4:
        return plain
    logits = _at_least_float32(logits)
    top = logits.topk(4, dim=1).values
    spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return _ratio(plain, spread, logits, torch.zeros_like(y, dtype=torch.bool))


def targeted_margin(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return z_t - z_y for each sample [B]; positive if the target outranks the true class.

    Args:
        logits: Logits [B, K].
        y: True classes [B].
        target: Target classes [B], different from ``y``.

    Source: Gowal et al., "An alternative surrogate loss for PGD-based adversarial testing", 2019
        (arXiv:1910.09338).
    """
    logits = _at_least_float32(logits)
    both = logits.gather(1, torch.stack([target, y], 1))
    return both[:, 0] - both[:, 1]


def _ratio(plain: Tensor, spread: Tensor, logits: Tensor, unfit: Tensor) -> Tensor:
    """Divide a margin by a spread; rows with a tie or marked ``unfit`` keep the plain margin."""
    tie = spread <= _RESOLUTION * logits.detach().abs().amax(1)
    alone = tie | unfit
    return torch.where(alone, plain, plain / torch.where(alone, 1, spread))


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}
TARGETED_LOSSES: dict[str, TargetedLoss] = {
    "targeted_margin": targeted_margin,
    "targeted_dlr": targeted_dlr,
}
ALL_LOSSES: dict[str, Callable[..., Tensor]] = {**LOSSES, **TARGETED_LOSSES}

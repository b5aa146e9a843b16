"""Test of the input gradient: it exists, is not zero and points where the loss rises.

A gradient that has nothing to do with the loss passes two tests with a probability of at most 5 %,
and the loss's own gradient passes both:

- Each image takes a step along the sign of its gradient and the opposite step. If the gradient is
  as likely as its negative, so is the difference of the two losses. The sum of the differences must
  be among the largest 5 % of the sums with random signs.
- The gradients of the first images are multiplied by a random sign for each pixel, the same for all
  images. If the direction of the gradient is one of many random ones, perhaps the same for all
  images, none of them is special. The rise along the gradient must be above the rise of all 19.

Both compare the largest standardised value over several radii.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import NoGradientError
from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.gradients.zero_gradients import zero_gradients
from spikeguard.attacks.losses import cross_entropy
from spikeguard.encoders.input_space import space_of
from spikeguard.rng import SampleStreams, key, randomness, stream

__all__ = ["beats_its_negative", "require_gradient"]

_RADII = (2 / 255, 8 / 255, 0.1, 0.3)
_LEVEL = 0.05
_SIGNS = 2000  # random sums of the differences
_OTHERS = 19  # random directions; the gradient is the best of 20 by chance in 5 %
_FIRST = 16  # images of the random directions
_FEWEST = 5  # with fewer differences no sum is among the largest 5 %: 1 / 2^5 is the first below


def require_gradient(
    model: nn.Module,
    logits: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    seed: int,
) -> tuple[float, float, float, float]:
    """Return (share of zero gradients, eps, rise along the gradient, best rise of random signs).

    The rises are those of the mean loss of the first 16 images.

    Raises:
        ValueError: If there is no gradient, or one that does not raise the loss above chance.
    """
    streams = SampleStreams(key(seed, "check"), torch.arange(len(x)))
    try:
        with randomness(model, streams):
            _, grad = BACKPROP(model, x, y, cross_entropy)
            zero = float(zero_gradients(model, x, y).double().mean())
    except NoGradientError as error:
        raise ValueError(
            "check: no gradient reaches the input: an encoder under no_grad, or one that draws "
            "spikes (PoissonEncoder, LatencyEncoder), cuts it; show the image itself at every step."
        ) from error
    if zero == 1:
        raise ValueError(
            "check: the input gradient is exactly zero for every image: an encoder that draws "
            "spikes (snntorch.spikegen.rate) has derivative 0, and so has a spike without a "
            "surrogate; show the image itself at every step, or exchange the surrogates."
        )

    def losses(direction: Tensor, eps: float, n: int) -> Tensor:
        moved = space_of(model).clamp(x[:n] + eps * direction[:n])
        return cross_entropy(logits(moved, torch.arange(n)), y[:n]).double()

    eps, along, chance, best = _among_directions(losses, grad.sign(), seed)
    if not (best and beats_its_negative(losses, grad.sign(), seed)):
        raise ValueError(
            f"check: a step of {eps:.3g} along the gradient's sign raises the mean loss by "
            f"{along:.3g}, one in a random direction by {chance:.3g}: the gradient is not that of "
            "the loss; look for a detached or sampling part, or exchange the surrogates."
        )
    return zero, eps, along, chance


def beats_its_negative(
    losses: Callable[[Tensor, float, int], Tensor], sign: Tensor, seed: int
) -> bool:
    """Return whether the loss rises along the gradient and not along its negative.

    Source: Fisher, "The design of experiments", 1935, the randomisation test of paired differences.
    """
    n = len(sign)
    rows = [losses(sign, eps, n) - losses(-sign, eps, n) for eps in _RADII]
    differ = torch.stack([row.cpu() for row in rows])  # [radii, N]
    size = differ.norm(dim=1, keepdim=True)
    if int((differ != 0).any(0).sum()) < _FEWEST:
        return True  # too few images to say more than the random directions
    unit = differ / size.clamp_min(torch.finfo(size.dtype).tiny)
    flips = torch.randint(0, 2, (_SIGNS, n), generator=stream(seed, "check", "signs")) * 2.0 - 1
    sums = (flips.to(unit) @ unit.T).amax(1)
    own = float(unit.sum(1).max())
    return 1 + int((sums >= own).sum()) <= _LEVEL * (_SIGNS + 1)


def _among_directions(
    losses: Callable[[Tensor, float, int], Tensor], sign: Tensor, seed: int
) -> tuple[float, float, float, bool]:
    """Return (eps, rise of the mean loss, best rise of random directions, whether it is the best).

    Given at the radius at which the gradient is most above the mean of all directions.
    """
    n = min(_FIRST, len(sign))
    generator = stream(seed, "check", "directions")
    flips = torch.randint(0, 2, (_OTHERS, *sign.shape[1:]), generator=generator).to(sign) * 2 - 1
    base = float(losses(torch.zeros_like(sign), 0.0, n).mean())
    directions = [sign, *(sign * flip for flip in flips)]
    rows = [[float(losses(d, eps, n).mean()) - base for d in directions] for eps in _RADII]
    rises = torch.tensor(rows, dtype=torch.float64)  # [radii, directions], the gradient first
    spread = rises.std(1, keepdim=True).clamp_min(torch.finfo(rises.dtype).tiny)
    standard = (rises - rises.mean(1, keepdim=True)) / spread
    most = standard.amax(0)
    where = int(standard[:, 0].argmax())
    chance = float(rises[where, 1:].max())
    return _RADII[where], float(rises[where, 0]), chance, bool(most[0] > most[1:].max())

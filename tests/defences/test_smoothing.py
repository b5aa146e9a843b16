"""Label smoothing: closed forms of the loss, on clean and on perturbed images."""

import math

import pytest
import torch
from torch import nn

from spikeguard.defences import AT, TRADES, GaussianNoise, LabelSmoothing, Mixup, Objective
from spikeguard.rng import stream


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_equal_logits_cost_the_logarithm_of_the_classes(share):
    """Every log p is -log K, whatever the labels."""
    loss = LabelSmoothing(share).fit(torch.zeros(3, 5), torch.tensor([0, 4, 2]))
    assert float(loss) == pytest.approx(math.log(5))


def test_two_classes_by_hand():
    """Logits (0, a): log p = -(a + c, c), c = log(1 + e^-a); q of class 1 is 1 - s / 2."""
    a, s = 1.5, 0.2
    c = math.log(1 + math.exp(-a))
    loss = LabelSmoothing(s).fit(torch.tensor([[0.0, a]]), torch.tensor([1]))
    assert loss.item() == pytest.approx((1 - s / 2) * c + s / 2 * (a + c))


def test_the_least_loss_is_the_entropy_of_the_labels():
    """At logits log q the loss is H(q), and its gradient is 0."""
    q = torch.tensor([[0.1 / 3, 0.1 / 3, 0.9 + 0.1 / 3]])
    logits = q.log().requires_grad_()
    loss = LabelSmoothing(0.1).fit(logits, torch.tensor([2]))
    assert loss.item() == pytest.approx(float(-(q * q.log()).sum()))
    (grad,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(grad, torch.zeros_like(grad), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "pieces", [AT(eps=0.2, steps=2), GaussianNoise(0.5) | Mixup(0.3), TRADES(eps=0.2, steps=2)]
)
def test_every_cross_entropy_of_the_objective_is_smoothed(pieces):
    """One pixel, logits (x, 0): L = CE(y) + (s / 2)(z_y - z_other), so the difference is known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [0.0]]))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.zeros(1, dtype=torch.int64)

    def outcome(objective):
        return Objective.of(objective)(model, x, y, progress=0.0, generator=stream(0, "o"))

    plain, smooth = outcome(pieces), outcome(pieces | LabelSmoothing(0.4))
    seen = smooth.seen.x.item()
    assert plain.seen.x.item() == seen != 0.5  # the search uses the plain labels
    share = {"trades": 1.0, "mixup": 0.3}.get(Objective.of(pieces).pieces[-1].name, 0.0)
    margin = share * 0.5 + (1 - share) * seen  # z_y - z_other = x on the image that counts
    difference = (smooth.losses["label_smoothing"] - plain.losses["cross_entropy"]).item()
    assert difference == pytest.approx(0.2 * margin, abs=1e-6)
    assert smooth.losses.get("trades") == plain.losses.get("trades")


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan])
def test_a_share_out_of_range_is_rejected(share):
    with pytest.raises(ValueError, match=r"smoothing is a share in \[0, 1\), got"):
        LabelSmoothing(share)

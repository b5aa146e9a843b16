"""SR: closed forms on a linear model, its passes, its noise, and its gradient."""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from spikeguard.defences import AT, HIRE, SR, TGO, Objective, Piece
from spikeguard.defences.piece import Pass, Step
from spikeguard.kernels.selection import use_kernel
from spikeguard.models import CNN, MLP
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import RandomSource, randomness, stream

A = torch.tensor([0.5, -1.0, 0.25], dtype=torch.float64)
X = torch.tensor([[0.2, 0.4, 0.6], [0.9, 0.1, 0.3]], dtype=torch.float64)


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def linear(*rows):
    model = nn.Linear(3, len(rows), bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.stack([torch.as_tensor(row).double() for row in rows]))
    return model


def penalty(piece, model, x, y, seed=0):
    """The term for a clean batch."""
    x = x.detach().requires_grad_()
    seen = Pass(x, model(x), None)
    return piece.term(Step(model, seen, None, y, 0.5, stream(seed, "step")))


# ---------------------------------------------------------------------------- closed forms


def test_two_classes_by_hand():
    """f = sigmoid(a.x), d = sign(a): the difference moves the logit by h |a|_1 = 1.75 h."""
    y = torch.tensor([0, 0])
    values = [((sigmoid(z + 0.0175) - sigmoid(z)) / 0.01) ** 2 for z in (X @ A).tolist()]
    found = penalty(SR(lamb=2.0), linear(A, torch.zeros(3)), X, y).item()
    assert found == pytest.approx(2 * sum(values) / 2, rel=1e-9)


def test_for_small_h_it_is_the_squared_l1_norm_of_the_gradient():
    x = X.clone().requires_grad_()
    model, y = linear(A, -A, [0.1, 0.2, 0.3]), torch.tensor([0, 1])
    logits = model(x)
    competitor = logits.detach().masked_fill(torch.eye(3)[y].bool(), -math.inf).argmax(1)
    own = logits.gather(1, y[:, None])[:, 0]
    f = (own - logits.gather(1, competitor[:, None])[:, 0]).sigmoid()
    (grad,) = torch.autograd.grad(f.sum(), x)
    expected = grad.abs().sum(1).square().mean()
    found = penalty(SR(lamb=1.0, h=1e-6), model, X, y)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_the_competitor_is_that_of_the_first_pass():
    """Class 2 exceeds class 1 at x + h d; the difference is still taken to class 1."""
    y, x = torch.tensor([0]), torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64)
    model = linear([1.0, 0.0, 0.0], [0.4, 0.0, 0.0], [0.5, -0.2, 0.0])  # 0.5, 0.2, 0.15 at x
    h = 1.0  # d = sign(0.6, 0, 0): x + h d = (1.5, 0.5, 0.5), logits 1.5, 0.6, 0.65
    expected = (sigmoid(0.9) - sigmoid(0.3)) ** 2
    assert penalty(SR(lamb=1.0, h=h), model, x, y).item() == pytest.approx(expected)


def test_logits_of_any_size_give_a_finite_penalty():
    model = linear(1e5 * A, -1e5 * A).float()
    for y in (0, 1):
        assert penalty(SR(lamb=1.0), model, X.float(), torch.tensor([y, y])).isfinite()


def test_the_direction_is_known_where_f_is_saturated():
    """z_y - z_c = -200 at x, +200 at x + h d; the derivative of the sigmoid underflows at both."""
    a = torch.tensor([4e4, 0.0, 0.0])
    x, y = torch.tensor([[0.5, 0.0, 0.0]]), torch.tensor([0])
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.copy_(torch.stack([a, torch.zeros(3)]))
        model.bias.copy_(torch.tensor([-200 - 2e4, 0.0]))
    assert penalty(SR(lamb=1.0), model, x, y).item() == pytest.approx(1e4, rel=1e-3)


def test_the_gradient_in_the_weights_is_that_of_the_finite_difference():
    """Against central differences, with d fixed (its signs do not change)."""
    y, piece = torch.tensor([0, 1]), SR(lamb=1.0)
    model = linear(A, [0.1, 0.2, 0.3])
    penalty(piece, model, X, y).backward()
    step = 1e-6
    for i in range(2):
        for j in range(3):
            values = []
            for sign in (1, -1):
                moved = linear(A, [0.1, 0.2, 0.3])
                with torch.no_grad():
                    moved.weight[i, j] += sign * step
                values.append(penalty(piece, moved, X, y).item())
            slope = (values[0] - values[1]) / (2 * step)
            assert model.weight.grad[i, j].item() == pytest.approx(slope, rel=1e-4, abs=1e-9)


# --------------------------------------------------------------------------------- passes

IMAGES = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])


def cnn(neuron=None):
    neuron = LIF(0.5, v_th=0.3) if neuron is None else neuron
    return CNN(1, 3, T=2, width=2, hidden=4, image_size=8, neuron=neuron).train()


def outcome(objective, model):
    with randomness(model, stream(1, "noise")):
        return Objective.of(objective)(
            model, IMAGES, LABELS, progress=0.5, generator=stream(1, "objective")
        )


@pytest.mark.parametrize(
    ("lamb", "neuron", "passes"),
    [(1.0, None, 2), (1.0, NoisyLIF(0.5, sigma=0.2, v_th=0.3), 3), (0.0, None, 1)],
)
def test_one_more_pass_in_training_mode_and_a_second_where_there_is_noise(lamb, neuron, passes):
    model = cnn(neuron)
    outcome(SR(lamb), model)
    assert model.features[1].num_batches_tracked == passes
    assert SR(lamb).idle == (lamb == 0)


class Noisy(nn.Module):
    """Adds one draw per sample to the first logit, and stores it."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.inner, self.random, self.drawn = nn.Linear(64, 3), RandomSource(), []

    def forward(self, x):
        logits = self.inner(x.flatten(1))
        self.drawn.append(self.random.normal(logits[:, 0], dim=0))
        return logits + self.drawn[-1][:, None] * torch.tensor([1.0, 0.0, 0.0])


def test_both_ends_of_the_difference_see_the_same_noise():
    model = Noisy()
    outcome(SR(1.0), model)
    trained_on, here, there = model.drawn
    assert torch.equal(here, there)
    assert not torch.equal(here, trained_on)


def test_both_ends_of_the_difference_leave_out_the_same_values():
    """Dropout draws from torch's own generator."""
    drop, masks = nn.Dropout(0.5), []
    model = nn.Sequential(nn.Linear(64, 40), drop, nn.Linear(40, 3)).train()
    drop.register_forward_hook(lambda module, given, made: masks.append(made == 0))
    x, y = torch.rand(7, 64, generator=stream(0, "x")), torch.arange(7) % 3
    before = torch.get_rng_state()
    first = penalty(SR(1.0), model, x, y).item()
    trained_on, here, there = masks
    assert torch.equal(here, there) and not torch.equal(here, trained_on)
    torch.set_rng_state(before)
    assert penalty(SR(1.0), model, x, y).item() == first


def test_it_shifts_no_draw_of_the_network():
    """After the step, the network's draws are the same as without the piece."""
    following = []
    for objective in (TGO(0.4), TGO(0.4) | SR(1.0)):
        model, source = cnn(NoisyLIF(0.5, sigma=0.2, v_th=0.3)), stream(1, "noise")
        with randomness(model, source):
            Objective.of(objective)(
                model, IMAGES, LABELS, progress=0.5, generator=stream(1, "objective")
            )
        following.append(torch.rand(4, generator=source))
    assert torch.equal(*following)


def test_with_adversarial_training_the_difference_is_taken_at_the_attacked_images():
    model = cnn()
    joined = outcome(AT(eps=0.1) | SR(1.0), model)
    shown = joined.seen.x.detach()
    assert not torch.equal(shown, IMAGES)
    alone = penalty(SR(1.0), cnn(), shown, LABELS)
    torch.testing.assert_close(joined.losses["sr"], alone)


def test_with_one_image_for_each_step_it_is_taken_in_all_of_them():
    """HIRE gives [T, B, ...]: gradient and difference use the image of every step."""
    model = cnn()
    joined = outcome(HIRE(eps=0.1) | SR(1.0), model)
    assert joined.seen.x.shape == (2, *IMAGES.shape)
    joined.total.backward()
    assert joined.losses["sr"] > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_its_own_pass_trains_no_parameter_that_another_piece_froze():
    @dataclass(frozen=True)
    class Freeze(Piece):
        name: ClassVar[str] = "freeze"

        def frozen(self, model, progress):
            return [model.classifier[-1].weight]

    model = cnn()
    outcome(Freeze() | SR(1.0), model).total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert len(without) == 1
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("network", ["cnn", "mlp"])
def test_all_kernels_agree_on_the_penalty_and_its_gradient(network):
    """The first pass is differentiated twice: for the direction, and for the weights."""
    found = []
    for kernel in ("reference", "multistep", None):
        model = cnn() if network == "cnn" else MLP(64, 3, T=3, hidden=(8,), neuron=LIF(v_th=0.2))
        x = IMAGES if network == "cnn" else IMAGES.flatten(1)
        with use_kernel(kernel) if kernel else nullcontext():
            loss = penalty(SR(1.0), model, x, LABELS)
            loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters())])
    assert found[0][0] > 0
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-4)  # up to 50


def test_a_model_that_detaches_its_images_is_rejected():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(64, 3)

        def forward(self, x):
            return self.inner(x.detach().flatten(1))

    with pytest.raises(ValueError, match="SR: no gradient reaches the images"):
        outcome(SR(1.0), Detached())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lamb": -0.1}, "lamb is a weight >= 0, got -0.1"),
        ({"lamb": math.nan}, "lamb is a weight >= 0"),
        ({"lamb": 1.0, "h": 0.0}, "h is a length > 0 in input units, got 0"),
        ({"lamb": 1.0, "h": math.inf}, "h is a length > 0"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        SR(**wrong)

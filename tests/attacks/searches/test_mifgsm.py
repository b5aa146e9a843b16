"""MI-FGSM: momentum sequences computed by hand, and zero gradients."""

import pytest
import torch
from torch import nn

from spikeguard.attacks import L2, EoT, Linf, cost
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.mifgsm import MIFGSM
from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import SampleStreams, stream


class Given:
    """A gradient prescribed for each step; it records the points at which it is called."""

    def __init__(self, *gradients):
        self.gradients = [torch.tensor(g) for g in gradients]
        self.points = []

    def __call__(self, model, x, y, loss):
        self.points.append(x.clone())
        grad = self.gradients[len(self.points) - 1]
        return torch.zeros(len(x)), grad.expand_as(x).clone()


class Deaf(nn.Module):
    def forward(self, x):
        return torch.stack([torch.ones(len(x)), torch.zeros(len(x))], 1)


def zeros(count):
    return torch.zeros(count, dtype=torch.int64)


def walked(attack, x):
    """Return the signs of an attack's steps."""
    end = attack(Deaf(), x, zeros(len(x)))
    points = torch.stack([*attack.gradient.points, end])
    return ((points[1:] - points[:-1]) / attack.step_size).round().int()[:, 0].tolist()


def test_the_momentum_is_a_sum_of_gradients_of_equal_weight():
    """g / ||g||_1 are (.75, -.25), (-.5, .5), (0, 1), for any length; with mu = 1/2

    m is (.75, -.25), (-.125, .375), (-.0625, 1.1875).
    """
    given = Given([3.0, -1.0], [-1e-6, 1e-6], [0.0, 1e6])
    attack = MIFGSM(Linf(0.4), steps=3, step_size=0.1, decay=0.5, gradient=given)
    assert walked(attack, torch.full((1, 2), 0.5)) == [[1, -1], [-1, 1], [-1, 1]]


@pytest.mark.parametrize(
    ("decay", "signs"), [(0.0, [1, -1, -1]), (1.0, [1, 1, -1]), (0.4, [1, -1, -1])]
)
def test_the_decay_decides_how_long_a_gradient_is_remembered(decay, signs):
    """One pixel gets 0.6, -0.5, -0.2 of a gradient of length 1: sums .6, .1, -.1 for mu = 1."""
    given = Given([0.6, 0.4], [-0.5, 0.5], [-0.2, 0.8])
    attack = MIFGSM(Linf(0.4), steps=3, step_size=0.1, decay=decay, gradient=given)
    assert [step[0] for step in walked(attack, torch.full((1, 2), 0.5))] == signs


def test_a_gradient_of_zero_adds_nothing_and_stops_nothing():
    given = Given([0.0, 0.0], [1.0, -1.0], [0.0, 0.0], [0.0, 0.0])
    attack = MIFGSM(Linf(0.4), steps=4, step_size=0.1, decay=0.5, gradient=given)
    signs = walked(attack, torch.full((1, 2), 0.5))
    assert signs == [[0, 0], [1, -1], [1, -1], [1, -1]]


def test_a_gradient_at_the_edge_of_what_a_float_holds():
    given = Given([1e-44, -3e-44], [-3e38, 3e38])
    attack = MIFGSM(Linf(0.4), steps=2, step_size=0.1, gradient=given)
    assert walked(attack, torch.full((1, 2), 0.5)) == [[1, -1], [-1, -1]]


def test_the_norm_is_over_all_axes_of_event_frames():
    """Frames with ten times the gradient have ten times the weight, not the same weight."""

    class Frames(Given):
        def __call__(self, model, x, y, loss):
            losses, _ = super().__call__(model, x, y, loss)
            grad = torch.ones_like(x)
            grad[:, 0] = 10.0
            grad[:, 1:] *= -1 if len(self.points) == 2 else 1
            return losses, grad / (1 if len(self.points) == 1 else 2)

    x = torch.full((1, 3, 2, 1, 2, 2), 0.5)
    attack = MIFGSM(Linf(0.3), steps=2, step_size=0.1, gradient=Frames([0.0], [0.0]))
    state = attack.begin(x, zeros(1), SampleStreams(0, [0]), 0)
    state = attack.step(Deaf(), x, zeros(1), state).state
    size = 10 * 8 + 2 * 8
    torch.testing.assert_close(state["momentum"][0, 0], torch.full((2, 1, 2, 2), 10 / size))
    torch.testing.assert_close(state["momentum"][0, 1], torch.full((2, 1, 2, 2), 1 / size))
    state = attack.step(Deaf(), x, zeros(1), state).state
    torch.testing.assert_close(state["momentum"][0, 0], torch.full((2, 1, 2, 2), 20 / size))
    assert torch.equal(state["momentum"][0, 1], torch.zeros(2, 1, 2, 2))


def test_under_l2_a_step_goes_along_the_momentum_itself():
    given = Given([3.0, -1.0], [1.0, 3.0])
    attack = MIFGSM(L2(0.4), steps=2, step_size=0.1, gradient=given)
    found = attack(Deaf(), torch.full((1, 2), 0.5), zeros(1))
    m = torch.tensor([[0.75, -0.25], [1.0, 0.5]])
    torch.testing.assert_close(found[0] - 0.5, (0.1 * m / m.norm(dim=1, keepdim=True)).sum(0))


def test_the_default_step_is_eps_over_the_steps():
    given = Given(*[[1.0, -2.0]] * 4)
    found = MIFGSM(Linf(0.2), steps=4, gradient=given)(Deaf(), torch.full((1, 2), 0.5), zeros(1))
    torch.testing.assert_close(found[0], torch.tensor([0.7, 0.3]))
    torch.testing.assert_close(given.points[1][0], torch.tensor([0.55, 0.45]))


class Rowwise(nn.Linear):
    """A linear layer whose sums do not depend on the batch size in the last bit."""

    def forward(self, x):
        return (x[..., None, :] * self.weight).sum(-1) + self.bias


def test_step_by_step_fools_the_samples_of_the_plain_call_and_ends_at_the_same_point():
    model = MLP(16, 3, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))
    for module in model.eval().modules():
        if isinstance(module, nn.Linear):
            module.__class__ = Rowwise
    x = torch.rand(30, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
        attack = MIFGSM(Linf(0.06), steps=5)
        streams = SampleStreams(3, torch.arange(30))
        plain = attack(model, x, y, generator=streams)
        fooled = model(plain).argmax(1) != y

    def judge(points, rows):
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    for size in (4, 30):
        found, right = active_set(
            attack, model, x, y, streams=streams, batch_size=size, judge=judge
        )
        assert fooled.any()
        assert not right[fooled].any()
        assert right.any()
        assert torch.equal(found[right > 0], plain[right > 0])


def test_the_cost():
    assert cost(MIFGSM(Linf(0.1), steps=7)) == 7
    assert cost(MIFGSM(Linf(0.1), steps=7, gradient=EoT(3))) == 21


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"step_size": 0.0}, "step_size must be positive, got 0"),
        ({"decay": -0.1}, "decay is the factor of the momentum, >= 0, got -0.1"),
        ({"decay": float("nan")}, "got nan"),
    ],
)
def test_rejects_in_one_line(options, says):
    with pytest.raises(ValueError, match=says) as error:
        MIFGSM(Linf(0.1), **options)
    assert "\n" not in str(error.value)

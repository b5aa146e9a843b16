"""SA-PGD: its sequence computed by hand, its schedule, its result, and zero gradients."""

import pytest
import torch
from torch import nn

from spikeguard.attacks import L2, EoT, Linf, cost, margin
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import RandomSource, SampleStreams, stream


class Still(Linf):
    """A ball whose random start is its centre."""

    def sample(self, x, streams):
        return x


class StillL2(L2):
    """An L2 ball whose random start is its centre."""

    def sample(self, x, streams):
        return x


class Given:
    """A gradient prescribed for each step; it records the points at which it is called."""

    def __init__(self, *gradients):
        self.gradients = [torch.tensor(g) for g in gradients]
        self.points = []

    def __call__(self, model, x, y, loss):
        self.points.append(x.clone())
        grad = self.gradients[len(self.points) - 1]
        return loss(model(x), y), grad.expand_as(x).clone()


class Rising(nn.Module):
    """Never fooled; its loss rises with every call, so that the last point is the best one."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        lead = torch.full((len(x),), 100.0 - self.calls)
        return torch.stack([lead, torch.zeros(len(x))], 1)


def zeros(count):
    return torch.zeros(count, dtype=torch.int64)


def streams(count):
    return SampleStreams(3, torch.arange(count))


def walked(threat, *gradients):
    """Return the steps of a search that starts at grey, in units of eps."""
    given = Given(*gradients)
    attack = SAPGD(threat, steps=len(gradients), loss=margin, gradient=given)
    x = torch.full((1, len(gradients[0])), 0.5)
    end = attack(Rising(), x, zeros(1))
    points = torch.stack([*given.points, end])
    return (points[1:] - points[:-1])[:, 0] / threat.eps


def test_the_sequence_of_momentum_and_squares():
    """Gradients (3, 1) then (-1, 1): g / mean|g| = (1.5, .5), (-1, 1); g^2 / mean g^2 =

    (1.8, .2), (1, 1). So m = (1.5, .5), (-.25, 1.25) and v = (1.8, .2), (2.44, 1.16). The first
    step is 1.5 / sqrt 1.8 and .5 / sqrt .2, both cut to 1; the second is -.25 / sqrt 2.44 and
    1.25 / sqrt 1.16, the latter cut, and then both halved at the checkpoint after one step
    of two. The ball limits the second pixel.
    """
    steps = walked(Still(0.25), [3.0, 1.0], [-1.0, 1.0])
    expected = torch.tensor([[1.0, 1.0], [-0.25 / 2.44**0.5 / 2, 0.0]])
    torch.testing.assert_close(steps, expected)


def test_the_length_of_a_gradient_does_not_matter_not_even_at_the_edge_of_floats():
    one = walked(Still(0.25), [3.0, 1.0], [-1.0, 1.0])
    other = walked(Still(0.25), [3e-30, 1e-30], [-1e37, 1e37])
    torch.testing.assert_close(one, other)


def test_a_gradient_of_zero_is_no_nan():
    """m and v shrink by 1/2 and 4/5: the next step is 1/2 / sqrt(4/5) as long, then halved."""
    nothing = [[0.0, 0.0]] * 2
    assert torch.equal(walked(Still(0.25), *nothing), torch.zeros(2, 2))
    steps = walked(Still(0.25), [0.0, 0.0], [1.0, -1.0])
    torch.testing.assert_close(steps, torch.tensor([[0.0, 0.0], [0.5, -0.5]]))
    steps = walked(Still(0.25), [1.0, 0.0], [0.0, 0.0])
    assert steps[:, 1].tolist() == [0, 0]


def test_the_step_size_is_halved_at_every_checkpoint_and_never_else():
    """The gradient changes sign at each step: in the limit m is +-2/3 and v is 5."""
    given = Given(*[[1.0 if k % 2 else -1.0] for k in range(100)])
    attack = SAPGD(Still(0.25), steps=100, gradient=given)
    attack(Rising(), torch.full((1, 1), 0.5), zeros(1))
    moves = torch.stack(given.points).diff(dim=0).abs()[:, 0, 0]
    momentum, squares, expected = 0.0, 0.0, []
    for k in range(99):
        momentum, squares = 0.5 * momentum + (1 if k % 2 else -1), 0.8 * squares + 1
        halved = sum(k >= mark for mark in (22, 41, 57, 70, 80, 87, 93, 99))
        expected.append(0.25 * 0.5**halved * min(1, abs(momentum) / squares**0.5))
    first = 5  # the first steps reach the ball's edge
    torch.testing.assert_close(moves[first:], torch.tensor(expected[first:]), rtol=1e-4, atol=1e-7)


def test_under_l2_a_step_goes_along_the_momentum():
    """m = (.6, .8), then (.3, .4) + (.8, -.6) = (1.1, -.2), with v = 1, then 1.8."""
    steps = walked(StillL2(0.25), [3.0, 4.0], [4.0, -3.0])
    second = torch.tensor([0.6, 0.8]) + torch.tensor([1.1, -0.2]) / 1.8**0.5 / 2
    end = second / max(1.0, float(second.norm()))
    torch.testing.assert_close(steps[0], torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(steps.sum(0), end)


# --- what it returns


class Line(nn.Module):
    """Logits 0 and <w, x - 1/2> - lead; records its batch sizes."""

    def __init__(self, weight, lead):
        super().__init__()
        self.weight, self.lead, self.sizes = weight, lead, []

    def forward(self, x):
        self.sizes.append(len(x))
        score = ((x - 0.5) * self.weight).sum(1) - self.lead
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("lead", [9.0, 0.5], ids=["never fooled", "fooled"])
def test_reaches_the_corner_of_a_linear_model(lead):
    w = torch.randn(12, generator=stream(0, "w"))
    x = torch.full((3, 12), 0.5)
    found = SAPGD(Linf(0.125), steps=20)(Line(w, lead), x, zeros(3), generator=streams(3))
    torch.testing.assert_close(found, (x + 0.125 * w.sign()))


def test_returns_the_last_point_that_fools_else_that_of_the_highest_loss():
    """The gradient goes 0.25 up, then back in steps: only the first step fools the model."""
    up, down = [1.0], [-1.0]
    model = Line(torch.ones(1), lead=0.2)  # fooled above 0.7
    for lead, best in ((0.2, 0.75), (9.0, 0.75)):
        model.lead = lead
        given = Given(up, *[down] * 5)
        found = SAPGD(Still(0.25), steps=6, gradient=given)(
            model, torch.full((1, 1), 0.5), zeros(1)
        )
        assert found.item() == pytest.approx(best)
    given = Given(up, up, *[down] * 4)  # fooled at 0.75, twice, and then at 0.71 last
    model.lead = 0.2
    attack = SAPGD(Still(0.25), steps=6, gradient=given)
    found = attack(model, torch.full((1, 1), 0.5), zeros(1))
    wrong = [p.item() for p in given.points if p.item() > 0.7]
    assert found.item() == pytest.approx(wrong[-1])


def test_the_final_point_is_not_compared_by_another_loss():
    """The gradient's losses are far below those of the logits, at the final point too."""

    class Potentials(Given):
        def __call__(self, model, x, y, loss):
            _, grad = super().__call__(model, x, y, loss)
            return -100 + x[:, 0], grad  # highest at the largest x

    model = Line(torch.ones(1), lead=9.0)  # never fooled
    given = Potentials([1.0], *[[-1.0]] * 5)
    attack = SAPGD(Still(0.25), steps=6, gradient=given)
    found = attack(model, torch.full((1, 1), 0.5), zeros(1))
    assert found.item() == 0.75 == max(point.item() for point in given.points)


def test_the_final_point_of_a_search_is_evaluated():
    """One step of eps crosses the boundary."""
    model = Line(torch.ones(1), lead=0.2)
    found = SAPGD(Still(0.25), steps=1)(model, torch.full((1, 1), 0.5), zeros(1))
    assert found.item() == 0.75
    made = SAPGD(Still(0.25), steps=1)
    state = made.begin(torch.full((1, 1), 0.5), zeros(1), streams(1), 0)
    with torch.no_grad():
        step = made.step(model, torch.full((1, 1), 0.5), zeros(1), state)
    assert step.over.all()
    assert not step.fooled.any(), "the point that the gradient saw is not"
    assert step.result.item() == 0.75


def test_only_samples_not_fooled_are_searched_again():
    w = torch.ones(4)
    model = Line(w, lead=0.4)
    x = torch.full((3, 4), 0.5)
    x[1] = 0.2
    attack = SAPGD(Linf(0.125), steps=5, restarts=3)
    found = attack(model, x, zeros(3), generator=streams(3))
    assert model(found).argmax(1).tolist() == [1, 0, 1]
    assert model.sizes[:-1] == [3] * 7 + [1] * 7 * 2


def test_against_noise_a_wrong_answer_by_chance_does_not_end_or_decide_anything():
    """A fifth of the draws is wrong at every point, with no higher loss: the corner is found."""

    class Coin(Line):
        stochastic = True

        def __init__(self, *args):
            super().__init__(*args)
            self.random = RandomSource()

        def forward(self, x):
            logits = super().forward(x)
            lost = self.random.uniform(x[:, 0], dim=0) < 0.2
            return logits if not lost.any() else torch.where(lost[:, None], logits.flip(1), logits)

    def height(logits, y):
        return logits.amin(1)  # swapping two logits does not change it

    x = torch.full((40, 4), 0.5)
    model = Coin(torch.ones(4), 2.0)
    found = SAPGD(Linf(0.125), steps=8, loss=height)(model, x, zeros(40), generator=streams(40))
    torch.testing.assert_close(found, x + 0.125)


class Rowwise(nn.Linear):
    """A linear layer whose sums do not depend on the batch size in the last bit."""

    def forward(self, x):
        return (x[..., None, :] * self.weight).sum(-1) + self.bias


@pytest.mark.parametrize("restarts", [1, 2])
def test_step_by_step_fools_the_samples_of_the_plain_call_and_ends_at_the_same_point(restarts):
    model = MLP(16, 3, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))
    for module in model.eval().modules():
        if isinstance(module, nn.Linear):
            module.__class__ = Rowwise
    x = torch.rand(30, 16, generator=stream(0, "x"))
    attack = SAPGD(Linf(0.05), steps=6, restarts=restarts)
    with torch.no_grad():
        y = model(x).argmax(1)
        plain = attack(model, x, y, generator=streams(30))
        fooled = model(plain).argmax(1) != y

    def judge(points, rows):
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    for size in (4, 30):
        found, right = active_set(
            attack, model, x, y, streams=streams(30), batch_size=size, judge=judge
        )
        assert torch.equal(fooled, right == 0)
        assert 0 < fooled.sum() < 30
        if restarts == 1:
            assert torch.equal(found[right > 0], plain[right > 0])


def test_the_cost():
    assert cost(SAPGD(Linf(0.1), steps=7)) == pytest.approx(7 + 1 / 3)
    assert cost(SAPGD(Linf(0.1), steps=7, restarts=3)) == pytest.approx(3 * (7 + 2 / 3))
    assert cost(SAPGD(Linf(0.1), steps=7, gradient=EoT(2))) == pytest.approx(14 + 1 / 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"restarts": 0}, "restarts must be >= 1, got 0"),
    ],
)
def test_rejects_in_one_line(options, says):
    with pytest.raises(ValueError, match=says) as error:
        SAPGD(Linf(0.1), **options)
    assert "\n" not in str(error.value)

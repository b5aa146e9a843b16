"""MTPGD: the order of targets, its steps, its optimum, and when samples stop."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from spikeguard.attacks import L2, PGD, Backprop, EoT, Linf, cost, margin
from spikeguard.attacks.base import describe
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.attacks.searches.restarts import runner_up
from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import RandomSource, SampleStreams, stream


class Classes(nn.Module):
    """Class 0 has logit ``lead``, class k has <w_k, x - 1/2> + b_k; records its batch sizes."""

    def __init__(self, weights, lead, shift=None):
        super().__init__()
        self.weights, self.lead, self.sizes = weights, lead, []
        self.shift = torch.zeros(len(weights)) if shift is None else shift

    def forward(self, x):
        self.sizes.append(len(x))
        scores = ((x - 0.5).flatten(1)[:, None] * self.weights).sum(2) + self.shift
        return torch.cat([0 * scores[:, :1] + self.lead, scores], 1)


@dataclass(frozen=True)
class Still(Linf):
    """A ball whose random start is its centre."""

    def sample(self, x, streams):
        return x


def weights(classes, size=12):
    w = torch.randn(classes, size, generator=stream(0, "w"))
    return torch.where(w.abs() < 0.1, 0.1, w)


def zeros(count):
    return torch.zeros(count, dtype=torch.int64)


def streams(count):
    return SampleStreams(3, torch.arange(count))


GREY = torch.full((2, 12), 0.5)


@pytest.mark.parametrize("threat", [Linf(0.125), L2(0.25)], ids=["linf", "l2"])
def test_ends_at_the_optimum_of_the_last_target_where_nothing_fools(threat):
    """The maximum of z_t - z_y over the ball is along w_t; the weakest class is the last one."""
    w = weights(3)
    shift = torch.tensor([2.0, 1.0, 0.0])
    found = MTPGD(threat, steps=20)(Classes(w, 90.0, shift), GREY, zeros(2), generator=streams(2))
    best = threat.eps * threat.steepest(w[2:])
    gain = (found - GREY) @ w[2] / (best @ w[2])
    assert gain.min() > 0.98
    if threat.norm == "linf":
        torch.testing.assert_close(found, (GREY + best).expand(2, -1))


def test_a_step_is_a_tenth_after_half_and_a_hundredth_after_three_quarters():
    attack = MTPGD(Linf(0.1), steps=8, step_size=0.01)
    lengths = attack._length(torch.arange(8))
    assert lengths.tolist() == pytest.approx([0.01] * 4 + [0.001] * 2 + [0.0001] * 2)
    first = MTPGD(Linf(0.1), steps=20)._length(torch.arange(20))
    assert float(first[:10].sum()) == pytest.approx(2.5 * 0.1)


@pytest.mark.parametrize(("targets", "ranks"), [(0, [2, 3, 1]), (2, [2, 3]), (9, [2, 3, 1])])
def test_targets_come_in_the_order_of_the_clean_logits(targets, ranks):
    tried = []

    def noting(logits, y, target):
        tried.append(target.tolist())
        return logits.gather(1, target[:, None])[:, 0]

    model = Classes(weights(3), 90.0, torch.tensor([1.0, 3.0, 2.0]))
    MTPGD(Linf(0.1), steps=4, targets=targets, loss=noting)(model, GREY, zeros(2))
    assert tried == [[rank] * 2 for rank in ranks for _ in range(4)]


@dataclass
class Alternating:
    """A gradient that is 2 e_1 and 4 e_2 in turn, whatever the point."""

    calls: int = 0

    def __call__(self, model, x, y, loss):
        loss(model(x), y)
        self.calls += 1
        grad = torch.zeros(12)
        grad[1 - self.calls % 2] = 2.0 * (2 - self.calls % 2)
        return torch.zeros(len(x)), grad.expand_as(x)


@pytest.mark.parametrize(("momentum", "second"), [(0.0, (0.0, 1.0)), (0.5, (0.5, 1.0))])
def test_momentum_accumulates_unit_gradients_and_starts_again_with_each_target(momentum, second):
    """The second step of a target follows m = mu e_1 + e_2, without momentum e_2 alone."""
    attack = MTPGD(Still(1.0), 2, 0.01, gradient=Alternating(), momentum=momentum)
    model, state = Classes(weights(2), 90.0), attack.begin(GREY, zeros(2), streams(2), 0)
    for _ in range(2):  # two targets
        first = attack.step(model, GREY, zeros(2), state).state
        state = attack.step(model, GREY, zeros(2), first).state
        moved = (state["x_adv"] - first["x_adv"])[:, :2]
        expected = torch.tensor(second).sign() * 0.001  # a tenth after half of the steps
        torch.testing.assert_close(moved, expected.expand(2, -1), rtol=0, atol=1e-6)
        if momentum:
            torch.testing.assert_close(state["momentum"][0, :2], torch.tensor(second))


def test_momentum_0_is_no_momentum_and_a_negative_one_is_rejected():
    assert "momentum" not in describe(MTPGD(Linf(0.1)))
    assert describe(MTPGD(Linf(0.1), momentum=0.9))["momentum"] == 0.9
    with pytest.raises(ValueError, match="momentum is a factor >= 0, got -1"):
        MTPGD(Linf(0.1), momentum=-1.0)


def test_equal_logits_rank_by_the_class_number_and_no_rank_is_the_true_class():
    logits = torch.tensor([[1.0, 5.0, 1.0, 3.0]]).repeat(5, 1)
    ranks = torch.tensor([0, 1, 2, 0, 9])
    y = torch.tensor([1, 1, 1, 3, 0])
    assert runner_up(logits, y, ranks).tolist() == [3, 0, 2, 1, 2]


def test_a_sample_is_done_at_its_first_success():
    """The class is 3 steps away with the first target: clean, three evaluations, then it leaves."""
    model = Classes(torch.ones(1, 12), lead=0.25)  # 1/48 away in each pixel
    x = GREY.clone()
    x[1] = 0.1  # 0.4 further away: never fooled
    attack = MTPGD(Still(0.1), steps=6, step_size=0.01)
    found = attack(model, x, zeros(2))
    torch.testing.assert_close(found[0], torch.full((12,), 0.53))
    assert model.sizes == [2, 2, 2, 2, 2, 1, 1, 1]  # clean, x to x + 0.03; then x[1] alone
    assert Classes(torch.ones(1, 12), 0.25)(found).argmax(1).tolist() == [1, 0]


def test_the_final_point_of_each_target_is_evaluated():
    """One step to a target crosses the boundary; only an evaluation of the final point shows it."""
    model = Classes(torch.stack([-torch.ones(12), torch.ones(12)]), 0.6, torch.tensor([0.1, 0.0]))
    x = torch.full((1, 12), 0.5)
    x[:, :6] = 0.45  # 0.3 nearer to class 1
    found = MTPGD(Still(0.06), steps=1, step_size=0.06)(model, x, zeros(1))
    assert model(found).argmax(1).item() == 1
    torch.testing.assert_close(found, x - 0.06)


def test_it_finds_a_class_that_the_margin_walks_away_from():
    """The best other class at x is 1, which can never win; class 2 can, in the other direction.

    PGD on the margin moves towards class 1 and stays there.
    """
    w = torch.stack([torch.ones(12), -3 * torch.ones(12)])
    model = Classes(w, lead=2.0, shift=torch.tensor([0.6, -1.0]))
    x, y = GREY, zeros(2)
    untargeted = PGD(Still(0.1), steps=20, loss=margin)(model, x, y)
    assert not model(untargeted).argmax(1).any()
    found = MTPGD(Still(0.1), steps=20)(model, x, y)
    assert model(found).argmax(1).tolist() == [2, 2]


def test_rows_without_a_gradient_do_not_disturb_the_others():
    class Dead(Classes):
        def forward(self, x):
            live = (x[:, :1] > 0.3).to(x.dtype)
            return super().forward(0.5 + live * (x - 0.5))

    x = GREY.clone()
    x[1] = 0.1
    model = Dead(torch.ones(1, 12), lead=0.5)
    found = MTPGD(Linf(0.1), steps=5)(model, x, zeros(2), generator=streams(2))
    assert model(found).argmax(1).tolist() == [1, 0]
    assert torch.isfinite(found).all()


class Rowwise(nn.Linear):
    """A linear layer whose sums do not depend on the batch size in the last bit."""

    def forward(self, x):
        return (x[..., None, :] * self.weight).sum(-1) + self.bias


def spiking():
    model = MLP(16, 4, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))
    for module in model.eval().modules():
        if isinstance(module, nn.Linear):
            module.__class__ = Rowwise
    return model


@pytest.mark.parametrize("targets", [0, 2])
def test_step_by_step_it_finds_what_the_plain_call_finds(targets):
    model, x = spiking(), torch.rand(30, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = MTPGD(Linf(0.05), steps=4, targets=targets)
    plain = attack(model, x, y, generator=streams(30))

    def judge(points, rows):
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    for size in (4, 30):
        found, right = active_set(
            attack, model, x, y, streams=streams(30), batch_size=size, judge=judge
        )
        assert torch.equal(found, plain)
        assert 0 < right.sum() < 30


def test_an_adaptive_gradient_starts_afresh_for_every_target():
    begun = []

    class Learning:
        def begin(self):
            begun.append(0)
            return Backprop()

    model, x = spiking(), torch.rand(6, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
        attack = MTPGD(Linf(1e-6), steps=3, gradient=Learning())
        attack(model, x, y, generator=streams(6))
        assert len(begun) == 3
        plain = MTPGD(Linf(0.05), steps=6)(model, x, y, generator=streams(6))
        found = MTPGD(Linf(0.05), steps=6, gradient=Learning())(model, x, y, generator=streams(6))
        fooled = model(plain).argmax(1) != y
        assert fooled.any()
        assert (model(found).argmax(1) != y).float().mean() > 0.5 * fooled.float().mean()


def test_against_noise_every_target_is_searched_to_its_end():
    """Random errors in a fifth of the draws do not stop the search, which must find class 2."""

    class Coin(Classes):
        stochastic = True

        def __init__(self, *args):
            super().__init__(*args)
            self.random = RandomSource()

        def forward(self, x):
            logits = super().forward(x)
            lost = self.random.uniform(x[:, 0], dim=0) < 0.2
            return logits - 100 * lost[:, None] * torch.eye(len(self.weights) + 1)[0]

    w = torch.stack([torch.ones(12), -3 * torch.ones(12)])
    model = Coin(w, 2.0, torch.tensor([0.6, -1.0]))
    x, attack = torch.full((40, 12), 0.5), MTPGD(Linf(0.1), steps=5)
    found = attack(model, x, zeros(40), generator=streams(40))
    torch.testing.assert_close(found, x - 0.1, rtol=0, atol=0.03)
    assert set(model.sizes) == {40}
    assert sum(model.sizes) / 40 == 1 + 2 * (1 + 5 + 1) + 2 * 10


def test_the_cost():
    assert cost(MTPGD(Linf(0.1), steps=7)) == float("inf")
    assert cost(MTPGD(Linf(0.1), steps=7, targets=3)) == pytest.approx(3 * (7 + 2 / 3))
    eot = MTPGD(Linf(0.1), steps=7, targets=3, gradient=EoT(2))
    assert cost(eot) == pytest.approx(3 * (14 + 2 / 3))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be >= 1, got 0"),
        ({"step_size": -1.0}, "step_size must be positive, got -1"),
        ({"targets": -1}, "targets counts classes, >= 0, got -1"),
    ],
)
def test_rejects_in_one_line(options, says):
    with pytest.raises(ValueError, match=says) as error:
        MTPGD(Linf(0.1), **options)
    assert "\n" not in str(error.value)

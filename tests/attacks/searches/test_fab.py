"""FAB: projections against brute force, boundaries at a known distance, and when samples end."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spikeguard.attacks import L1, L2, EoT, Linf, cost
from spikeguard.attacks.model_access import observe_passes
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.fab import FAB, onto_plane
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import RandomSource, SampleStreams, stream

THREATS = {"linf": Linf, "l2": L2, "l1": L1}
every_norm = pytest.mark.parametrize("norm", THREATS)


def length(d, norm):
    order = {"linf": torch.inf, "l2": 2, "l1": 1}[norm]
    return torch.linalg.vector_norm(d, order, dim=-1)


def dual(w, norm):
    """The distance to the plane is |f| / dual."""
    return length(w, {"linf": "l1", "l2": "l2", "l1": "linf"}[norm])


class Planes(nn.Module):
    """Class 0 has logit 0, class k has <w_k, x - 1/2> - f_k: f_k / dual(w_k) away from grey."""

    def __init__(self, weights, gaps):
        super().__init__()
        self.weights, self.gaps, self.sizes = weights, gaps, []

    def forward(self, x):
        self.sizes.append(len(x))
        scores = ((x - 0.5).flatten(1)[:, None] * self.weights).sum(2) - self.gaps
        return torch.cat([0 * scores[:, :1], scores], 1)


def zeros(count):
    return torch.zeros(count, dtype=torch.int64)


def streams(count):
    return SampleStreams(3, torch.arange(count))


# --- the projection


@pytest.mark.slow
@every_norm
def test_no_point_of_a_fine_grid_on_the_plane_is_nearer(norm):
    """Two coordinates on a grid and the third solved for, on 40 random planes in the box."""
    own = stream(0, norm)
    point = torch.rand(40, 3, generator=own, dtype=torch.float64)
    w = torch.randn(40, 3, generator=own, dtype=torch.float64)
    aim = torch.rand(40, 3, generator=own, dtype=torch.float64)
    gap = (w * (point - aim)).sum(1)  # so that the plane contains a point of the box
    found = onto_plane(point, w, gap, norm)
    assert ((w * found).sum(1) + gap).abs().max() < 1e-12
    assert (point + found).min() > -1e-15
    assert (point + found).max() < 1 + 1e-15
    grid = torch.cartesian_prod(*[torch.linspace(0, 1, 401, dtype=torch.float64)] * 2)
    order = w.abs().argsort(dim=1)  # the steepest coordinate is solved for
    for p, normal, height, d, o in zip(point, w, gap, found, order, strict=True):
        p, normal, d = p[o], normal[o], d[o]
        third = (normal @ p - height - grid @ normal[:2]) / normal[2]
        inside = (third >= 0) & (third <= 1)
        on_plane = torch.cat([grid, third[:, None]], 1)[inside]
        best = length(on_plane - p, norm).min()
        assert length(d, norm) <= best + 1e-12
        assert length(d, norm) >= best - 0.02, "as near as the grid is fine"


@every_norm
def test_away_from_the_box_the_distance_is_the_gap_over_the_dual_norm(norm):
    w = torch.randn(5, 50, generator=stream(0, "w"), dtype=torch.float64)
    gap = torch.tensor([0.1, -0.1, 0.02, 0.0, -0.2], dtype=torch.float64)
    found = onto_plane(torch.full_like(w, 0.5), w, gap, norm)
    torch.testing.assert_close(length(found, norm), gap.abs() / dual(w, norm))
    torch.testing.assert_close((found * w).sum(1), -gap)


@every_norm
def test_a_plane_beyond_the_box_is_gone_towards_as_far_as_the_box_allows(norm):
    w = torch.tensor([[1.0, -2.0, 0.0]], dtype=torch.float64)
    point = torch.tensor([[0.25, 0.75, 0.4]], dtype=torch.float64)
    found = onto_plane(point, w, torch.tensor([-9.0], dtype=torch.float64), norm)
    torch.testing.assert_close(point + found, torch.tensor([[1, 0, 0.4]], dtype=torch.float64))


@every_norm
def test_without_a_slope_nothing_moves(norm):
    zero = torch.zeros(2, 4, dtype=torch.float64)
    gap = torch.tensor([-1.0, 0.0], dtype=torch.float64)
    assert torch.equal(onto_plane(zero + 0.5, zero, gap, norm), zero)


# --- the search


@every_norm
def test_finds_the_distance_to_a_plane(norm):
    w = torch.randn(1, 30, generator=stream(0, "w"))
    gaps = torch.tensor([0.7])
    x, model = torch.full((2, 30), 0.5), Planes(w, gaps)
    expected = float(0.7 / dual(w, norm))
    attack = FAB(THREATS[norm](1.02 * expected), steps=20)
    found = attack(model, x, zeros(2))
    assert model(found).argmax(1).all()
    assert attack.threat.distance(found, x).tolist() == pytest.approx([expected] * 2, rel=0.01)


@every_norm
def test_a_plane_in_a_corner_of_the_box_is_reached_along_its_walls(norm):
    """Pixels at 0 cannot fall, so the others move further, as the projection prescribes."""
    w = torch.linspace(-1, 1, 20)[None]
    x = torch.zeros(1, 20)
    expected = length(onto_plane(x.double(), w.double(), torch.tensor([-0.8]).double(), norm), norm)
    model = Planes(w, 0.8 - 0.5 * w.sum(1))  # the gap at 0 is 0.8
    threat = THREATS[norm](1.02 * float(expected))
    found = FAB(threat, steps=20)(model, x, zeros(1))
    assert model(found).argmax(1).all()
    assert threat.distance(found, x).item() == pytest.approx(float(expected), rel=0.01)


def test_the_nearest_of_all_targets_is_returned_and_no_more_are_tried_than_asked_for():
    """Distances 0.2, 0.3, 0.1 of the classes 1, 2, 3, which rank 1, 3, 2 by their logits."""
    weights = torch.eye(3, 12) * torch.tensor([[1.0], [2.0], [4.0]])
    model = Planes(weights, torch.tensor([0.2, 0.6, 0.4]))
    x = torch.full((1, 12), 0.5)
    for targets, nearest in ((1, 0.2), (2, 0.1), (3, 0.1), (50, 0.1)):
        model.sizes.clear()
        found = FAB(L2(0.5), steps=15, targets=targets)(model, x, zeros(1))
        assert float((found - x).norm()) == pytest.approx(nearest, rel=0.01)
        assert len(model.sizes) == min(targets, 3) * (1 + 2 * 15)


def test_what_is_out_of_reach_stays_in_the_set_and_what_cannot_be_fooled_stays_where_it_is():
    x = torch.full((1, 12), 0.5)
    far = Planes(torch.ones(1, 12), torch.tensor([3.0]))
    found = FAB(Linf(0.1), steps=10)(far, x, zeros(1))  # the plane is 0.25 away
    torch.testing.assert_close(found, x + 0.1)
    never = Planes(torch.ones(1, 12), torch.tensor([7.0]))
    assert torch.equal(FAB(Linf(0.1), steps=10)(never, x, zeros(1)), x)


def test_a_misclassified_input_is_returned_unchanged():
    x = torch.full((2, 12), 0.5)
    model = Planes(torch.ones(1, 12), torch.tensor([0.3]))
    assert torch.equal(FAB(Linf(0.1), steps=5)(model, x, torch.tensor([1, 1])), x)


def test_rows_without_a_gradient_stay_and_do_not_disturb_the_others():
    """The dead rows' logits are constant: the sample does not move, and no NaN occurs."""

    class Dead(Planes):
        def forward(self, x):
            live = (x[:, :1] != 0).to(x.dtype)
            return super().forward(0.5 + live * (x - 0.5))

    x = torch.full((3, 12), 0.5)
    x[1, 0] = 0
    model = Dead(torch.cat([torch.zeros(1, 1), torch.ones(1, 11)], 1), torch.tensor([0.55]))
    found = FAB(Linf(0.1), steps=10)(model, x, zeros(3))
    assert torch.equal(found[1], x[1])
    assert model(found).argmax(1).tolist() == [1, 0, 1]
    alone = FAB(Linf(0.1), steps=10)(model, x[:1], zeros(1))
    assert torch.equal(found[:1], alone)


# --- step by step


class Rowwise(nn.Linear):
    """A linear layer whose sums do not depend on the batch size in the last bit."""

    def forward(self, x):
        return (x[..., None, :] * self.weight).sum(-1) + self.bias


@pytest.mark.slow
@every_norm
def test_step_by_step_fools_the_samples_of_the_plain_call(norm):
    model = MLP(16, 4, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))
    for module in model.eval().modules():
        if isinstance(module, nn.Linear):
            module.__class__ = Rowwise
    x = torch.rand(30, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = FAB(THREATS[norm]({"linf": 0.05, "l2": 0.15, "l1": 0.4}[norm]), steps=8, targets=2)
    with torch.no_grad():
        plain = attack(model, x, y, generator=streams(30))
        fooled = model(plain).argmax(1) != y
    assert 0 < fooled.sum() < 30

    def judge(points, rows):
        attack.threat.check(points, x[rows])
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    results = [
        active_set(attack, model, x, y, streams=streams(30), batch_size=size, judge=judge)
        for size in (4, 30)
    ]
    for found, right in results:
        assert torch.equal(right == 0, fooled)
        assert torch.equal(found, results[0][0])
        assert torch.equal(found[~fooled], plain[~fooled])


def test_step_by_step_a_sample_ends_at_its_first_point_within_eps():
    """The first step ends 5 % beyond the plane: passes for x, the step and its end point."""
    model = Planes(torch.ones(1, 12), torch.tensor([0.6]))  # 0.05 away
    x = torch.full((2, 12), 0.5)
    attack = FAB(Linf(0.06))

    def judge(points, rows):
        torch.testing.assert_close(points, x + 1.05 * 0.05)
        return torch.zeros(len(rows))

    active_set(attack, model, x, zeros(2), streams=streams(2), batch_size=2, judge=judge)
    assert model.sizes == [2] * 3


# --- noise, cost, and rejected arguments


def test_against_noise_a_single_wrong_answer_is_no_success():
    """A fifth of the draws is wrong at every point; no point is worse than another."""

    class Coin(nn.Module):
        stochastic = True

        def __init__(self):
            super().__init__()
            self.random = RandomSource()

        def forward(self, x):
            own = 2.0 * (self.random.uniform(x[:, 0], dim=0) > 0.2) - 1
            return torch.stack([own, -own], 1) + 1e-3 * x[:, :2]

    x = torch.full((200, 4), 0.5)
    found = FAB(Linf(0.1), steps=1)(Coin(), x, zeros(200), generator=streams(200))
    moved_or_wrong = (found != x).flatten(1).any(1)
    assert moved_or_wrong.float().mean() < 0.2


def test_the_cost_is_what_a_sample_of_many_classes_costs():
    assert cost(FAB(Linf(0.1), steps=6, targets=3)) == pytest.approx(3 * (6 * 4 / 3 + 1 / 3))
    eot = FAB(Linf(0.1), steps=6, targets=3, gradient=EoT(2))
    assert cost(eot) == pytest.approx(3 * (6 * (2 + 10 / 3) + 10 / 3))


def test_against_noise_the_cost_is_what_is_spent():
    model = MLP(16, 4, T=2, hidden=(8,), neuron=NoisyLIF(0.5), generator=stream(0, "w"))
    attack, spent = FAB(Linf(0.1), steps=4, targets=3, gradient=EoT(3)), []
    with observe_passes(
        lambda samples, gradient: spent.append(samples * (1 if gradient else 1 / 3))
    ):
        attack(model, torch.rand(5, 16, generator=stream(0, "x")), zeros(5), generator=streams(5))
    assert sum(spent) / 5 == pytest.approx(cost(attack))


@every_norm
def test_a_box_without_an_upper_end_is_one_whose_end_is_far_away(norm):
    point = torch.rand(20, 5, generator=stream(0, "point"), dtype=torch.float64)
    w = torch.randn(20, 5, generator=stream(0, "w"), dtype=torch.float64)
    gap = 3 * torch.randn(20, generator=stream(0, "gap"), dtype=torch.float64)
    expected = onto_plane(point, w, gap, norm, 1e6)
    torch.testing.assert_close(onto_plane(point, w, gap, norm, torch.inf), expected)
    by_hand = {"linf": [4.0, -1.0], "l2": [4.0, -1.0], "l1": [5.0, 0.0]}[norm]
    one = (torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, -1.0]]), torch.tensor([-5.0]))
    assert onto_plane(*(each.double() for each in one), norm, torch.inf).tolist() == [by_hand]


@pytest.mark.parametrize(
    ("threat", "options", "says"),
    [
        (Linf(0.1), {"steps": 0}, "steps must be >= 1, got 0"),
        (Linf(0.1), {"targets": 0}, "targets counts classes, >= 1, got 0"),
        (SimpleNamespace(norm="l0", eps=1.0), {}, "got 'l0'"),
    ],
)
def test_rejects_in_one_line(threat, options, says):
    with pytest.raises(ValueError, match=says) as error:
        FAB(threat, **options)
    assert "\n" not in str(error.value)

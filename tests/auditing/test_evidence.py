"""Curves and widths in the evidence of checks, on models with known values."""

import pytest
import torch
from torch import nn

from spikeguard.attacks import APGD, PGD, EoT, Linf, margin
from spikeguard.auditing import Context
from spikeguard.auditing.context import EOT
from spikeguard.auditing.measurements.trajectories import on_fresh_draws, walk
from spikeguard.auditing.registry import CHECKS
from spikeguard.models import MLP
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import RandomSource
from tests.toys.closed_forms import EPS, IMAGES, LABELS, LIGHT, PATTERN, Linear

STEPS = 20
FAR = LIGHT > EPS  # no input of the ball changes the class


class Noisy(Linear):
    stochastic = True

    def __init__(self, width=0.5):
        super().__init__()
        self.random = RandomSource()
        self.width = width

    def forward(self, x):
        score = (x - 0.5).flatten(1) @ self.w
        score = score + self.width * (self.random.uniform(score[:, None], dim=0)[:, 0] - 0.5)
        return torch.stack([-score, score], 1)


def context(model, images=IMAGES, labels=LABELS, **options):
    attack = options.pop("attack", None) or PGD(Linf(EPS), steps=STEPS, loss=margin)
    return Context(model, images, labels, Linf(EPS), steps=STEPS, attack=attack, **options)


def test_loss_and_accuracy_by_step_reach_the_closed_form():
    """The margin of a sample at distance d under a shift of eps is -2 * 16 (d - eps)."""
    found = CHECKS["G10"](context(Linear())).evidence
    curve = found["curve"]
    assert found["resisting"] == int(FAR.sum())
    assert len(curve["loss"]) == len(curve["right"]) == found["steps"]
    expected = -32 * (LIGHT[FAR] - EPS)
    assert curve["loss"][-1] == pytest.approx(float(expected.mean()), abs=1e-4)
    for name, share in (("low", 0.25), ("high", 0.75)):
        assert curve[name][-1] == pytest.approx(float(expected.quantile(share)), abs=1e-4)
    assert curve["right"][-1] == pytest.approx(float(FAR.double().mean()))
    assert curve["loss"] == sorted(curve["loss"])  # the best so far
    assert curve["right"] == sorted(curve["right"], reverse=True)


def test_where_none_resists_the_curve_is_that_of_all():
    near = ~FAR
    found = CHECKS["G10"](context(Linear(), IMAGES[near], LABELS[near]))
    assert (found.status, found.evidence["resisting"]) == ("does not apply", 0)
    assert found.evidence["curve"]["right"][-1] == 0
    expected = float((-32 * (LIGHT[near] - EPS)).mean())
    assert found.evidence["curve"]["loss"][-1] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("far", "status"), [(2, "does not apply"), (3, "open"), (7, "open"), (8, "fail"), (20, "fail")]
)
def test_a_few_that_resist_decide_nothing(far, status):
    """Of 64, the interval of 2 is below 12 %, that of 3 is not; a mean needs 8; 4 steps are few."""
    near = torch.arange(5).repeat(13)[: 64 - far]  # fooled during the search
    some = torch.cat([near, FAR.nonzero()[:far, 0]])
    weak = PGD(Linf(EPS), steps=4, step_size=EPS / 4, loss=margin, random_start=False)
    found = CHECKS["G10"](context(Linear(), IMAGES[some], LABELS[some], attack=weak))
    assert found.evidence["resisting"] == far
    assert found.status == status, found.measured


def test_clean_errors_are_never_right():
    wrong = LABELS.clone()
    wrong[FAR] = 1 - wrong[FAR]
    curve = CHECKS["G10"](context(Linear(), labels=wrong)).evidence["curve"]
    assert max(curve["right"]) <= float((~FAR).double().mean()) + 1e-9


def test_under_noise_the_curve_is_that_of_every_step():
    attack = APGD(Linf(EPS), steps=STEPS, loss=margin, gradient=EoT(EOT))
    subject = context(Noisy(), attack=attack)
    found = CHECKS["G10"](subject).evidence
    seen = walk(subject, subject.reference())
    resisting = (subject.clean > 0) & (seen.right.amin(0) > 0)
    assert found["curve"]["loss"] == pytest.approx(seen.loss[:, resisting].mean(1).tolist())
    assert found["curve"]["loss"] != sorted(found["curve"]["loss"])


def slow():
    """Twenty steps, all of the same length, that end at two thirds of the radius."""
    options = {"step_size": EPS / 30, "loss": margin, "random_start": False}
    return PGD(Linf(EPS), steps=20, gradient=EoT(EOT), **options)


def quick():
    """A search that is at the edge of the ball after two steps."""
    return PGD(Linf(EPS), steps=STEPS, step_size=EPS, loss=margin, gradient=EoT(EOT))


def test_under_noise_the_best_points_are_the_last_of_a_loss_that_rises():
    """The margin grows by 32 EPS / 30 with each of 19 equal steps, far more than the noise."""
    subject = context(Noisy(width=0.01), attack=slow())
    seen = walk(subject, subject.reference())
    assert (seen.last, seen.points.shape) == (10, (3, 45, 1, 4, 4))
    moved = (seen.points - IMAGES).abs().flatten(2).amax(2) / (EPS / 30)
    assert moved.mean(1).tolist() == pytest.approx([0, 9, 19], abs=1e-3)
    found = CHECKS["G10"](subject)
    assert found.status == "fail"
    assert found.evidence["late"] == pytest.approx(10 / 19, abs=1e-4)


def test_points_share_their_draws_so_additive_noise_cancels():
    subject = context(Noisy(width=20.0))
    points = torch.stack([IMAGES, IMAGES, IMAGES + 0.01 * PATTERN])
    loss = on_fresh_draws(subject, points, margin)
    assert loss[0].equal(loss[1])
    assert (loss[2] - loss[0]).tolist() == pytest.approx(
        (0.32 * (1 - 2 * LABELS.double())).tolist(), abs=1e-4
    )
    assert (loss[0] + 32 * LIGHT).abs().max() > 0.1  # the loss itself is noisy


@pytest.mark.parametrize("width", [0.5, 1.5])
def test_noise_does_not_hide_a_loss_that_still_rises(width):
    """One step is 0.11 of margin; a mean of four draws has deviations of 0.14 and 0.43."""
    found = CHECKS["G10"](context(Noisy(width), attack=slow()))
    assert found.status == "fail", found.measured
    assert found.evidence["late"] > 0.3


@pytest.mark.parametrize("width", [0.5, 1.5])
def test_luck_at_the_edge_is_no_gain(width):
    """The best of noisy losses still grows there; every point has the same expected loss."""
    subject = context(Noisy(width), attack=quick())
    seen = walk(subject, subject.reference())
    best = seen.loss.cummax(0).values
    assert (best[-1] > best[-11]).any()
    found = CHECKS["G10"](subject)
    assert found.status == "pass", found.measured
    assert found.evidence["late"] == pytest.approx(0, abs=1e-6)


def test_every_surrogate_has_its_half_width():
    model = MLP(num_classes=2, T=2, hidden=(4,), in_shape=(1, 4, 4), neuron=spiking(0.7)).eval()
    found = CHECKS["S4"](context(model, IMAGES[:4], LABELS[:4])).evidence
    assert found["own_half_width"] == 0.7
    assert found["half_width"].keys() == found["accuracy"].keys()
    scaled = {n: w for n, w in found["half_width"].items() if n.startswith("its own")}
    assert sorted(scaled.values()) == pytest.approx([0.175, 0.35, 1.4])  # 5 times: a triangle's
    triangles = set(found["half_width"].values()) - set(scaled.values())
    assert triangles == {0.25, 0.5, 1.0, 2.0, 3.5, 5.0}


def test_layers_of_different_widths_have_no_own_half_width():
    model = nn.Sequential(nn.Flatten(), Step(0.7), Step(1.5))
    labels = torch.zeros(4, dtype=torch.int64)
    found = CHECKS["S4"](context(model, IMAGES[:4], labels)).evidence
    assert found["own_half_width"] is None
    scaled = [w for name, w in found["half_width"].items() if name.startswith("its own")]
    assert scaled and set(scaled) == {None}


class Step(nn.Module):
    """One time step of spiking neurons."""

    def __init__(self, width):
        super().__init__()
        self.neuron = spiking(width)

    def forward(self, x):
        return self.neuron(2 * x[None])[0]


def spiking(width):
    return LIF(0.5, surrogate=Triangular(width))


class Half(nn.Module):
    """Two spiking layers; three quarters of the outputs of the second are unused."""

    def __init__(self):
        super().__init__()
        self.first, self.second = spiking(5.0), spiking(5.0)
        mask = torch.zeros(16)
        mask[:4] = torch.arange(1.0, 5.0)
        self.register_buffer("mask", mask)

    def forward(self, x):
        spikes = self.second(self.first(x.flatten(1)[None]) + 0.1)[0] * self.mask
        return torch.stack([spikes.sum(1), torch.zeros(len(x))], 1)


class Gated(Linear):
    """Half of the draws of each sample have no gradient."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()

    def forward(self, x):
        gate = (self.random.uniform(x.flatten(1)[:, :1], dim=0) < 0.5).float()
        return super().forward(x) * gate


def test_under_noise_repeats_narrow_the_share_without_a_gradient():
    """One of 2 ** 4 samples has none on four draws; four repeats halve the spread of the share."""
    n = 8 * len(IMAGES)
    x, y = IMAGES.repeat(8, 1, 1, 1), LABELS.repeat(8)
    found = [CHECKS["G15"](context(Gated(), x, y, seed=seed)).evidence for seed in range(20)]
    shares = torch.tensor([evidence["share"] for evidence in found])
    alone = (1 / 16 * 15 / 16 / n) ** 0.5
    assert float(shares.mean()) == pytest.approx(1 / 16, abs=3 * alone / 80**0.5)
    assert 0.25 * alone < float(shares.std()) < 0.75 * alone
    assert {4 * evidence["samples"] % 1 for evidence in found} == {0}


def test_zero_gradients_are_counted_by_layer():
    labels = torch.zeros(45, dtype=torch.int64)
    found = CHECKS["S8"](context(Half(), labels=labels, batch_size=20)).evidence
    assert found["zero"] == pytest.approx({"first": 0.75, "second": 0.75})

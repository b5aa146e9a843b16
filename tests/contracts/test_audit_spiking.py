"""Contract of the checks of forward pass, spiking gradients and scores, with known answers."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.attacks import APGD, ASSG, L1, SAPGD, Linf, Square
from spikeguard.auditing import Context
from spikeguard.auditing.registry import CHECKS
from spikeguard.encoders.coding import Poisson
from spikeguard.neurons import LIF
from spikeguard.rng import RandomSource, stream
from tests.toys.audit_spiking_faults import (
    DIGITS,
    FAULTS,
    LARGE,
    SMALL,
    TWINS,
    Purifier,
    TwoArms,
    X,
    Y,
    blind_at_the_last_step,
    context,
    dead_layer,
    healthy,
    narrow,
    network,
    noisy,
    search,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights():
    """The weights of a plainly trained network."""
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=6e-3)
    x, y = DIGITS.train.batch(slice(None))
    for epoch in range(8):
        for index in torch.randperm(len(x), generator=stream(0, "order", epoch)).split(50):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[index]), y[index]).backward()
            optimiser.step()
    return model.eval().state_dict()


# --- the contract


def pairs(cases):
    return [(code, name) for code, named in cases.items() for name in named]


def test_every_check_has_a_planted_fault():
    assert set(FAULTS) == set(TWINS) <= set(CHECKS)


@pytest.mark.parametrize(("code", "fault"), pairs(FAULTS))
def test_a_check_fires_on_its_planted_fault(code, fault, weights):
    finding = CHECKS[code](FAULTS[code][fault](weights))
    assert finding.status == "fail", finding.measured
    assert finding.code == code
    assert finding.meaning
    assert finding.remedy
    assert finding.threshold


@pytest.mark.parametrize(("code", "twin"), pairs(TWINS))
def test_a_check_is_silent_on_a_healthy_twin(code, twin, weights):
    finding = CHECKS[code](TWINS[code][twin](weights))
    assert finding.status == "pass", (finding.measured, finding.meaning)
    assert finding.code == code
    assert finding.meaning
    assert not finding.remedy


@pytest.mark.parametrize(
    "code", ["S2", "S3", "G16", "G20", "G21", "G22", "S6", "S7", "S8", "S9", "S12", "G24", "S18"]
)
def test_a_check_is_silent_on_a_declared_noisy_network(code, weights):
    finding = CHECKS[code](noisy(weights))
    assert finding.status == "pass", finding.measured


# --- checks that do not apply or cannot run


class Plain(nn.Module):
    """No spiking layer, no time, no last linear layer."""

    def forward(self, x):
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    "code",
    ["G26", "S12", "S3", "S5", "S6", "S7", "S8", "S10", "S11", "S13", "S14", "S16", "S19", "S22"],
)
def test_a_check_without_a_question_does_not_pass(code):
    finding = CHECKS[code](context(Plain()))
    assert finding.status == "does not apply", finding.measured
    assert finding.measured


@pytest.mark.parametrize("code", ["S16", "S17"])
def test_what_cannot_be_asked_under_l1_is_not_run(code, weights):
    assert CHECKS[code](context(healthy(weights), L1(5.0))).status == "not run"


@pytest.mark.parametrize(
    ("code", "checks"), [("G2", CHECKS), pytest.param("S15", CHECKS, marks=pytest.mark.long)]
)
def test_under_l1_differences_of_the_loss_take_the_place_of_square(code, checks, weights):
    sound = checks[code](context(healthy(weights), L1(5.0), images=240, attack=None))
    hidden = checks[code](context(narrow(weights, 1e-3), L1(5.0)))
    assert (sound.status, hidden.status) == ("pass", "fail"), (sound.measured, hidden.measured)
    assert "NES" in sound.measured and "Square" not in sound.measured


@pytest.mark.parametrize(
    "code",
    [pytest.param(c, marks=[pytest.mark.long] * (c in ("G2", "G9", "S5", "S15"))) for c in CHECKS],
)
def test_a_check_leaves_a_model_in_training_as_it_was(code, weights):
    """One forward pass in training mode changes the statistics of batch norm."""
    model = healthy(weights).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    CHECKS[code](Context(model, X[:6], Y[:6], SMALL, steps=2, budget="quick"))
    assert all(module.training for module in model.modules())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(getattr(module, "attacked", False) for module in model.modules())


def test_a_model_without_parts_has_no_calls_to_count():
    assert CHECKS["G22"](context(Plain())).status == "not run"


def test_a_network_that_does_not_say_how_it_was_trained_leaves_the_question_open(weights):
    assert CHECKS["S22"](context(healthy(weights))).status == "not run"


# --- known answers


class OnGradient(nn.Module):
    """A linear model: the gradient is exact, so correlations are 1."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 64))

    def forward(self, x):
        score = 0.01 * (x.flatten(1) @ self.w)
        return torch.stack([-score, score], 1)


def test_a_linear_model_agrees_with_its_finite_differences_entirely():
    subject = Context(OnGradient(), 0.3 + 0.4 * X, Y % 2, Linf(0.05))
    found = CHECKS["G18"](subject)
    assert found.evidence["median"] == pytest.approx(1, abs=1e-3)
    assert found.evidence["positive"] == len(X)
    steps = CHECKS["S17"](subject).evidence
    assert steps["guided"] > 0
    assert abs(steps["random"]) < steps["guided"]


def test_the_readout_of_the_active_test_has_its_adversarial_example_by_construction(weights):
    from spikeguard.auditing.checks.binarisation import Hook, binarised

    subject = search(weights)
    index = torch.arange(len(X))
    model, works = binarised(subject, Hook.on(subject.model, X[:1]), index)
    assert float(works.double().mean()) > 0.8
    with torch.no_grad():
        assert (model.take(works)(X[works]).argmax(1) == 0).all()
        turned = model.take(works)(X[works].flip(0)).argmax(1)
    assert (turned == 0).all()  # each row uses its own readout in any order


def test_autograd_is_left_as_it_was(weights):
    before = torch.autograd.grad, torch.autograd.backward, vars(torch.autograd).copy()
    CHECKS["G21"](context(Purifier(healthy(weights))))
    assert (torch.autograd.grad, torch.autograd.backward, vars(torch.autograd)) == before


@pytest.mark.parametrize("code", ["S3", "S6", "S13", "G22", "S12"])
def test_a_check_leaves_the_model_as_it_was(code, weights):
    model = network(LIF(0.5, detach_reset=True), encoder=Poisson()).eval()
    before = str(model)
    CHECKS[code](context(model))
    assert str(model) == before
    assert model.T == 3
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Blinking(nn.Module):
    """An encoder whose every second output is black, so that it has no gradient."""

    stochastic, normalised, constant = True, True, False

    def __init__(self):
        super().__init__()
        self.random = RandomSource()
        self.calls = 0

    def forward(self, x, T):
        self.calls += 1
        light = self.calls % 2
        return (x + 0 * self.random.uniform(x, dim=0)).mul(light).expand(T, *x.shape)


def test_a_gradient_on_one_of_the_draws_is_enough_under_noise(weights):
    """Every second draw is black: on it alone no sample has a gradient."""
    model = healthy(weights)
    model.encoder = Blinking()
    found = CHECKS["S6"](context(model))
    assert found.status == "pass" and found.evidence["samples"] == 0
    assert model.encoder.calls >= 4


def test_layers_are_named(weights):
    assert "features.6" in CHECKS["S7"](context(dead_layer(weights))).remedy
    cut = CHECKS["S12"](context(TwoArms(healthy(weights), healthy(weights)))).evidence["cut"]
    assert all(name.startswith("other.") for name in cut)
    assert CHECKS["S6"](context(blind_at_the_last_step(weights))).evidence["blind_steps"] == [2]


@pytest.mark.parametrize(("budget", "asked"), [("quick", ("BPTR",)), ("full", ())])
def test_s5_asks_sa_pgd_with_assg_in_both_budgets_and_the_other_rules_in_the_full_one(
    budget, asked, weights
):
    found = CHECKS["S5"](context(healthy(weights), budget=budget))
    assert "SA-PGD with ASSG" in found.measured
    assert all(name not in found.measured for name in asked)


def test_s5_says_whether_the_gradient_or_the_search_is_the_weaker_one(weights):
    """With a hidden gradient SA-PGD finds no more than the others; with ASSG it finds more."""
    found = CHECKS["S5"](context(narrow(weights, 0.01)))
    own, other = found.evidence["own"], found.evidence["accuracy"]["SA-PGD with ASSG"]
    searched = float(re.search(r"SA-PGD with the own gradient ([\d.]+) %", found.meaning)[1]) / 100
    assert other < searched - 0.2 and abs(searched - own) < 0.2, found.meaning


def test_s5_calls_own_only_what_follows_the_own_gradient(weights):
    """If the reported attack uses ASSG, it must not count as one with the own gradient."""
    handed = SAPGD(LARGE, steps=30, gradient=ASSG())
    found = CHECKS["S5"](context(narrow(weights, 0.01), attack=handed))
    plain = CHECKS["S5"](context(narrow(weights, 0.01), attack=APGD(LARGE, steps=50)))
    assert found.evidence["own"] == pytest.approx(plain.evidence["own"], abs=0.1)
    assert found.status == "fail"


_SEARCH, _SHARP = Square(LARGE, queries=200), SAPGD(LARGE, steps=30, gradient=ASSG())


@pytest.mark.parametrize(
    ("code", "handed"), [("G2", _SEARCH), ("S15", _SEARCH), ("S15", _SHARP)]
)  # G2 accepts any gradient, and that of ASSG is not hidden
def test_a_search_without_gradients_is_compared_with_gradients(code, handed, weights):
    """Whatever the reported attack, hidden gradients fail and sound ones pass."""
    check = CHECKS[code]
    hidden = check(context(narrow(weights, 1e-3), attack=handed))
    sound = check(context(healthy(weights), attack=handed))
    assert (sound.status, hidden.status) == ("pass", "fail"), (sound.measured, hidden.measured)

"""quick_check(): each planted fault is named, its healthy twin passes and stays as it was."""

import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeguard as sg
from spikeguard.attacks.base import AttackError
from spikeguard.attacks.model_access import observe_passes
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.preflight.quick import quick_check
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import LIFNode, Step

X = torch.rand(40, 16, generator=stream(0, "x"))
Y = torch.randint(0, 3, (40,), generator=stream(0, "y"))
PGD, SWEEP = (sg.attacks.PGD(sg.Linf(0.1)),), tuple(sg.attacks.suite("snn", eps=0.1).values())


class Layer(nn.Module):
    """A linear classifier with one fault of many, or with none."""

    def __init__(self, fault=""):
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(16, 3), nn.BatchNorm1d(16), nn.Dropout(0.5)
        self.fault, self.mem = fault, 0.0
        self.register_buffer("calls", torch.zeros(()))
        drawn(self, 0.5, stream(0, "layer"))

    def forward(self, x):
        if self.fault == "torch":
            x = x + 0.1 * torch.rand_like(x)
        if self.fault == "numpy":
            x = x + 0.1 * np.random.rand()  # noqa: NPY002
        if self.fault == "python":
            x = x + 0.1 * random.random()
        if self.fault == "functional dropout":
            x = functional.dropout(x, 0.5)
        if self.fault == "dropout":
            x = self.drop.train()(x)
        if self.fault == "batch norm":
            x = self.norm.train()(x)
        if self.fault == "functional batch norm":
            x = functional.batch_norm(x, None, None, training=True)
        if self.fault == "shared":
            x = x - x.mean(0)
        if self.fault == "counts":
            self.calls += 1
        out = self.layer(self.norm(x) if not self.fault else x)
        if self.fault == "leak":
            self.mem = out.detach().mean(0) + 0.9 * self.mem
            out = out + self.mem
        if self.fault == "fixed batch":
            out = out.view(16 if len(x) > 2 else 2, 3)
        return out


class Chance(nn.Module):
    """Ignores its input; right three times in four."""

    def __init__(self, source):
        super().__init__()
        self.source = source

    def forward(self, x):
        right = torch.rand(len(x), generator=self.source()) < 0.75
        return torch.stack([right, ~right], 1).float() + 0 * x.sum(1, keepdim=True)


DROPOUT = "a Dropout runs in training mode"
FAULTS = {
    "torch": "draws from torch's global generator or from NumPy's",
    "numpy": "draws from torch's global generator or from NumPy's",
    "python": "draws from torch's global generator or from NumPy's",
    "functional dropout": "leave dropout in evaluation mode",
    "dropout": DROPOUT,
    "batch norm": "a BatchNorm1d runs in training mode",
    "functional batch norm": "raises for one image alone",
    "shared": "of the images change when they are shown alone",
    "leak": "states of the first call leak into the second",
    "fixed batch": "raises for one image alone",
}


@pytest.mark.parametrize(("fault", "message"), FAULTS.items(), ids=FAULTS)
def test_a_planted_fault_stops_with_one_line(fault, message):
    with pytest.raises(ValueError, match=message) as error:
        quick_check(Layer(fault), X, Y)
    text = str(error.value)
    assert text.startswith("check: ")
    assert "\n" not in text
    assert text.endswith("check=False, or --no-check, measures it all the same.")


@pytest.mark.parametrize("train", [False, True])
def test_its_healthy_twin_passes(train):
    assert quick_check(Layer().train(train), X, Y, PGD) == ()


def test_a_classifier_that_is_wrong_by_chance_is_no_classifier():
    labels = torch.zeros(40, dtype=torch.long)
    with pytest.raises(ValueError, match="its robustness would be luck"):
        quick_check(Chance(lambda: None), X, labels)
    assert quick_check(Chance(lambda: stream(0, "chance")), X[:1], labels[:1]) == ()


def test_randomness_that_is_declared_passes_or_is_a_suspicion():
    options = {"T": 3, "hidden": (12,), "generator": stream(0, "w")}
    noisy = MLP(16, 3, neuron=NoisyLIF(0.5, v_th=0.3, sigma=0.3), **options)
    assert quick_check(noisy, X, Y, PGD) == ()
    model = Layer("torch")
    model.stochastic = True
    (warning,) = quick_check(model, X, Y, PGD)
    assert "declares its randomness but draws from a global generator" in warning


def network():
    return MLP(16, 3, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))


class Turned(nn.Module):
    """The logits of a classifier with another gradient."""

    def __init__(self, kind):
        super().__init__()
        self.inner, self.kind = network(), kind

    def forward(self, x):
        still = x.detach()
        shown = {"sane": x, "none": still, "zero": still + 0 * x, "down": 2 * still - x}
        return self.inner(shown[self.kind])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "no gradient reaches the input"),
        ("zero", "the input gradient is exactly zero"),
        ("down", "the gradient is not that of the loss"),
    ],
)
def test_a_gradient_that_is_not_the_losss_is_a_suspicion(kind, message):
    (warning,) = quick_check(Turned(kind), X, Y, PGD)
    assert message in warning
    assert quick_check(Turned(kind), X, Y) == ()  # no attack uses a gradient
    assert quick_check(Turned("sane"), X, Y, PGD) == ()


def test_a_model_that_writes_a_buffer_is_a_suspicion_and_gets_it_back():
    model = Layer("counts")
    (warning,) = quick_check(model, X, Y)
    assert "change the model (calls)" in warning
    assert model.calls == 0


class OwnSpikes(nn.Module):
    """A spiking layer of no framework."""

    def forward(self, x):
        return Step.apply(x - 0.2, 4.0, False)


def mixed(own):
    middle = OwnSpikes() if own else nn.ReLU()
    layers = (nn.Linear(16, 12), LIFNode(), nn.Linear(12, 12), middle, nn.Linear(12, 3))
    return drawn(sg.foreign(nn.Sequential(*layers), T=3), 0.8, stream(0, "mixed"))


def test_a_spiking_layer_that_no_sweep_reaches_is_named():
    (warning,) = [w for w in quick_check(mixed(True), X, Y, SWEEP) if "spikes" in w]
    assert "model.3 (OwnSpikes) emits spikes but is no known spiking layer" in warning
    assert "a worst case over surrogates is incomplete" in warning
    assert [w for w in quick_check(mixed(True), X, Y, PGD) if "spikes" in w] == []  # no sweep
    assert [w for w in quick_check(mixed(False), X, Y, SWEEP) if "spikes" in w] == []
    assert quick_check(network(), X, Y, SWEEP) == ()
    found = sg.check(mixed(True), X, Y).surrogates
    assert found == (
        "model.3 (OwnSpikes) emits spikes but is no known spiking layer, so attacks that exchange "
        "surrogates leave its derivative as it is"
    )


def test_weights_and_logits_that_are_not_finite_raise_what_an_attack_raises():
    model = Layer()
    model.layer.weight.data[0, 0] = torch.nan
    with pytest.raises(AttackError, match=r"layer\.weight holds NaN"):
        quick_check(model, X, Y)


@pytest.mark.parametrize("fault", ["", "torch", "leak", "batch norm", "dropout"])
def test_generators_modes_hooks_and_weights_stay_as_they_were(fault):
    model = Layer(fault).train()
    model.layer.eval()
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    drawn_before = torch.rand(1), np.random.rand(), random.random()  # noqa: NPY002
    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    try:
        quick_check(model, X, Y, PGD)
    except ValueError:
        assert fault
    assert (torch.rand(1), np.random.rand(), random.random()) == drawn_before  # noqa: NPY002
    assert [m.training for m in model.modules()] == modes
    torch.testing.assert_close(dict(model.state_dict()), weights, rtol=0, atol=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_the_passes_are_few():
    """2 watched, 2 x 16 repeated, 8 alone, 16 turned; PGD-40 on 100 images makes 4,000 steps."""
    seen = []
    with observe_passes(lambda samples, gradient: seen.append(samples)):
        quick_check(Layer(), X, Y)
        assert sum(seen) == 2 + 32 + 8 + 16
        quick_check(network(), X, Y, SWEEP)
    assert sum(seen) == 2 * 58 + 9 * 32 + 16  # gradient, its test, spiking layers


def test_in_a_block_of_autocast_the_passes_are_exact():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert quick_check(network(), X, Y, PGD) == ()


@pytest.mark.parametrize("n", [1, 2, 9])
def test_few_images_are_enough(n):
    assert quick_check(Layer(), X[:n], Y[:n]) == ()


def test_a_gradient_without_information_is_taken_for_one_in_at_most_5_per_cent():
    """A fixed random direction instead of the gradient; two of 40 pass in expectation."""

    class Random(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.inner = Layer()
            self.other = torch.randn(40, 16, generator=stream(seed, "random"))

        def forward(self, x):
            turned = (x - x.detach()) * self.other[: len(x)]
            return self.inner(x.detach()) + turned.sum(1, keepdim=True) * torch.tensor([1.0, 0, 0])

    passed = sum(not quick_check(Random(seed), X, Y, PGD, seed=seed) for seed in range(40))
    assert passed <= 5  # 98 % of binomial(40, 0.05) is at most 5
    assert all(not quick_check(Layer(), X, Y, PGD, seed=seed) for seed in range(40))

"""Perturbation of membrane potentials in networks: true, simplified, attacked and random."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import LayerPerturbation, Perturbation
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.perturbed import as_far_at_random, at_radius, norms, radii
from spikeguard.attacks import APGD, FGSM, L1, L2, PGD, RFGSM, Linf
from spikeguard.defences import MPPD
from spikeguard.models import CNN
from spikeguard.neurons import DLIF, LIF, NoisyLIF, record
from spikeguard.rng import SampleStreams, stream
from tests.toys import foreign_networks as theirs

X = torch.rand(5, 1, 8, 8, generator=stream(0, "x"))
Y = torch.arange(5) % 3
GATES = torch.tensor([1.2, 0.7, 1.1])


class Wired(nn.Module):
    """Image to one spiking layer for T equal steps; the logits are spike counts of two pixels."""

    def __init__(self, neuron, T=3):
        super().__init__()
        self.neuron, self.T = neuron, T

    def forward(self, x):
        spikes = self.neuron(x.flatten(1).expand(self.T, -1, -1))
        return spikes.mean(0)[:, :3]


class Shift:
    """An attack that adds eps to every pixel, inside the box."""

    cost = 0.0

    def __init__(self, threat):
        self.threat = threat

    def __call__(self, model, x, y, *, generator=None):
        return (x + self.threat.eps).clamp(0, 1)


def small(neuron, **options):
    return CNN(1, 3, T=3, width=3, hidden=6, image_size=8, neuron=neuron, **options).eval()


def gated(on, decay=0.9):
    neuron = DLIF(3, on, decay=decay, v_th=0.3)
    neuron.a.data = GATES.clone()
    return neuron


def measured(model, attack=None, **options):
    attack = FGSM(Linf(0.1)) if attack is None else attack
    return Perturbation(attack, points=2)(model, (X, Y), **options)


def test_a_silent_neuron_follows_the_leak_and_the_recursion_is_exact():
    """Below the threshold eps[t] = -0.1 (1 + l + l^2 ...), whatever the images are."""
    dark = 0.5 * X
    neuron = LIF(0.5, v_th=100.0)
    found = Perturbation(Shift(Linf(0.1)), points=1)(Wired(neuron), (dark, Y))
    assert found["reset"].max() == 0 and found["tasad"].max() == found["std"].max() == 0
    np.testing.assert_allclose(found["gated_error"][:, 1], 0, atol=1e-6)
    assert (found["plain"] == found["gated"]).all()
    eps = 0.1 * np.array([1, 1.5, 1.75]) / 100
    np.testing.assert_allclose(found["true"][0, 1, 0], eps**2, rtol=1e-5)
    np.testing.assert_allclose(found["true_all"][0, 1, 0], (eps**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(found["true_half"][0, 1, 0], 0, atol=1e-9)
    assert found["distance"][0, 1] == pytest.approx(0.1 * 8, rel=1e-5)


def test_a_neuron_under_constant_currents_jumps_while_the_recursion_is_smooth():
    """Fig. 1(a): 0.3 and 0.4 v_th, decay 0.9; the recursion is -0.1 (1 - 0.9^t) / 0.1."""
    neuron, traces = LIF(decay=0.9), []
    for level in (0.3, 0.4):
        with record(neuron) as trace:
            neuron(torch.full((30, 1, 1), level))
        traces += trace.values()
    found = LayerPerturbation.of(neuron, *traces)
    smooth = 0.9 ** torch.arange(1, 31) - 1
    torch.testing.assert_close(found.plain.flatten(), smooth, rtol=1e-4, atol=1e-5)
    assert float(found.true.min()) == pytest.approx(-0.784, abs=1e-3)
    assert float(found.true.max()) == pytest.approx(0.632, abs=1e-3)


def test_one_spike_by_hand_has_the_known_error():
    """Pixels 0.6, decay 1/2; perturbed 1: v is 0.6, 0.9, 1.05 and 1, 1, 1: it fires each time."""
    same = torch.full((2, 1, 2, 2), 0.6)
    found = Perturbation(Shift(Linf(0.4)), points=1)(Wired(LIF(0.5)), (same, Y[:2]))
    true, simplified = np.array([-0.4, -0.1, 0.05]), -0.4 * np.array([1, 1.5, 1.75])
    np.testing.assert_allclose(found["true"][0, 1, 0], true**2, rtol=1e-4)
    np.testing.assert_allclose(found["gated"][0, 1, 0], simplified**2, rtol=1e-4)
    error = np.sqrt(((simplified - true) ** 2).sum() / (true**2).sum())
    assert found["gated_error"][0, 1, 0] == pytest.approx(error, rel=1e-4)
    cosine = (simplified @ true) / np.sqrt((simplified**2).sum() * (true**2).sum())
    assert found["gated_cosine"][0, 1, 0] == pytest.approx(cosine, rel=1e-3)
    by_step = found["gated_error_by_step"][0, 1, 0]
    np.testing.assert_allclose(by_step, [0, 5, 15], rtol=1e-3, atol=1e-5)
    # spikes 0 0 1 and 1 1 1 of four pixels
    np.testing.assert_allclose(found["std"][0, 1, 0], [2, 8**0.5, 8**0.5], rtol=1e-6)
    np.testing.assert_allclose(found["tasad"][0, 1, 0], [2, 2, 2 * 2 / 3], rtol=1e-6)


@pytest.mark.parametrize("neuron", [LIF(0.9, v_th=0.3), NoisyLIF(0.5, 0.4, v_th=0.3)])
def test_radius_0_gives_zeros_also_under_noise(neuron):
    found = measured(small(neuron, generator=stream(0, "w")))
    for name in ("true", "drive", "reset", "plain", "gated", "tasad", "std", "distance"):
        assert not found[name][:, 0].any(), name
        assert found[name][0, 2].max() > 0, name
    assert np.isnan(found["gated_error"][:, 0]).all()


@pytest.mark.parametrize("on", ["input", "leak"])
def test_with_gates_the_first_step_is_exact_and_the_measure_is_that_of_the_defence(on):
    model = small(gated(on), generator=stream(0, "w"))
    found = measured(model)
    np.testing.assert_allclose(found["gated_error_by_step"][:, 1:, :, 0], 0, atol=1e-5)
    assert (found["plain"] != found["gated"]).any()
    if on == "input":  # without its gate the first step is off by |1 - 1 / a|
        expected = abs(1 - 1 / 1.2)
        np.testing.assert_allclose(found["plain_error_by_step"][:, 1:, :, 0], expected, rtol=1e-4)
    x_adv = FGSM(Linf(0.1))(model, X, Y)
    traces = []
    for x in (X, x_adv):
        with record(model) as trace, torch.no_grad():
            model(x)
        traces.append(list(trace.values())[-1])
    for name, defence in (("gated", MPPD(gated=True)), ("plain", MPPD(decay=0.9))):
        expected = defence.measure(*traces).item() / 0.3**2
        assert found[f"{name}_all"][0, -1, -1] == pytest.approx(expected, rel=1e-4)
    for name, distance in (("tasad", "tasad"), ("std", "std")):
        expected = MPPD(distance=distance, reduction="sum").measure(*traces).item()
        assert found[name][0, -1, -1, -1] == pytest.approx(expected, rel=1e-5)
    assert found["rest"].max() < 1e-5


def test_the_attack_is_measured_at_every_radius():
    model = small(LIF(0.9, v_th=0.3), generator=stream(0, "w"))
    found, alone = measured(model), Perturbation(FGSM(Linf(0.05)), points=1)(model, (X, Y))
    assert found.axes["eps"].tolist() == pytest.approx([0, 0.05, 0.1])
    for name in ("true", "gated", "std"):
        np.testing.assert_allclose(found[name][0, 1], alone[name][0, 1], rtol=1e-6)


def test_a_foreign_network_has_the_leak_of_its_own_recurrence():
    node = theirs.LIFNode()
    node.tau, node.decay_input = 4.0, False
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), node, nn.Linear(6, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(6, 64, generator=stream(0, "w")) / 2)
    found = measured(sg.foreign(net, T=4).eval())
    assert found["rest"].max() < 1e-5
    np.testing.assert_allclose(found["gated_error_by_step"][0, 1:, :, 0], 0, atol=1e-5)
    assert found["reset"][0, -1].max() > 0 and found["gated_error"][0, -1, 0] > 0.05


def test_a_reset_after_the_leak_is_reported_as_unexplained():
    """The toy of snnTorch subtracts the threshold after the leak; Eq. 10 multiplies it by it."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), theirs.Leaky(beta=0.5), nn.Linear(6, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(6, 64, generator=stream(0, "w")) / 2)
    found = measured(sg.foreign(net, T=4).eval())
    assert found["rest"].max() > 0.05


def test_potentials_that_cannot_be_recorded_are_not_measured():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), theirs.MisnamedLIFNode(), nn.Linear(6, 3))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(6, 64, generator=stream(0, "w")) / 2)
    with pytest.raises(NotApplicable, match="its potentials cannot be recorded"):
        measured(sg.foreign(net, T=4).eval())


def test_a_network_without_spiking_layers_is_not_measured():
    with pytest.raises(NotApplicable, match="no spiking layer"):
        measured(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))


def test_radii_and_step_lengths():
    assert radii(0.2, 4) == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    half = at_radius(PGD(Linf(0.25), steps=7, step_size=0.0625), 0.125)
    assert half == PGD(Linf(0.125), steps=7, step_size=0.03125)
    assert at_radius(PGD(L2(1.0)), 0.5) == PGD(L2(0.5))
    assert at_radius(RFGSM(Linf(0.25), alpha=0.125), 0.0625) == RFGSM(Linf(0.0625), alpha=0.03125)
    assert at_radius(APGD(Linf(0.2)), 0.2) == APGD(Linf(0.2))
    with pytest.raises(ValueError, match="Shift has a fixed radius; name an attack such as pgd7"):
        at_radius(Shift(Linf(0.2)), 0.1)
    with pytest.raises(ValueError, match="points is a number of radii >= 1, got 0"):
        Perturbation(FGSM(Linf(0.1)), points=0)
    with pytest.raises(ValueError, match="Shift has a fixed radius"):
        Perturbation(Shift(Linf(0.1)), points=2)


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.5), L1(4.0)])
def test_random_perturbations_are_as_long_as_the_attack_and_in_the_box(threat):
    x_adv = threat.sample(X, SampleStreams(1, range(5)))
    x_adv[2] = X[2]
    far = as_far_at_random(X, x_adv, threat, SampleStreams(0, range(5)))
    assert far.min() >= 0 and far.max() <= 1
    torch.testing.assert_close(norms(far - X), norms(x_adv - X), rtol=1e-4, atol=1e-6)
    assert torch.equal(far[2], X[2])
    cosine = ((far - X) * (x_adv - X)).flatten(1).sum(1) / norms(x_adv - X) ** 2
    assert cosine[[0, 1, 3, 4]].abs().max() < 0.5
    again = as_far_at_random(X[3:], x_adv[3:], threat, SampleStreams(0, [3, 4]))
    torch.testing.assert_close(again, far[3:])

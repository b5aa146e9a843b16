"""snnTorch's networks, attacked through the adapter."""

import warnings

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import SwapSurrogate, cross_entropy
from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.neurons import LIF, ATan, record
from spikeguard.rng import stream
from tests.peers.foreign import (
    TEST,
    T,
    check_attacked_alike,
    check_driven_and_swapped,
    check_learned,
    check_recorded,
    our_twin,
    trained,
)
from tests.toys.fitting import drawn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    snn = pytest.importorskip("snntorch", reason="snnTorch is missing: make bench-peers")
    surrogate = pytest.importorskip("snntorch.surrogate")
    spikegen = pytest.importorskip("snntorch.spikegen")


def seeded(net):
    return drawn(net, 0.2, stream(0, "peer"))


def hidden(**options):
    """A network of one step; the loop over time is outside it."""
    leaky = snn.Leaky(beta=0.5, init_hidden=True, **options)
    return seeded(nn.Sequential(nn.Flatten(), nn.Linear(64, 48), leaky, nn.Linear(48, 10)))


class Explicit(nn.Module):
    """As in the tutorials: the loop is inside, spikes and potentials are returned."""

    def __init__(self):
        super().__init__()
        self.first, self.hidden = nn.Linear(64, 48), snn.Leaky(beta=0.9)
        self.last, self.out = nn.Linear(48, 10), snn.Leaky(beta=0.9)

    def encode(self, x):
        return x.flatten(1).expand(T, len(x), 64)

    def forward(self, x):
        one, two = self.hidden.init_leaky(), self.out.init_leaky()
        spikes, potentials = [], []
        for frame in self.encode(x):
            s, one = self.hidden(self.first(frame), one)
            s, two = self.out(self.last(s), two)
            spikes.append(s)
            potentials.append(two)
        return torch.stack(spikes), torch.stack(potentials)


class Rated(Explicit):
    """Rate coding."""

    def encode(self, x):
        return spikegen.rate(x.flatten(1), num_steps=T)


def test_reset_to_zero_is_our_hard_reset_detached():
    """The reset comes one step later, before the leak: the same recurrence."""
    net = trained(hidden(reset_mechanism="zero"))
    model, (x, _) = sg.foreign(net, T=T).eval(), TEST
    ours = our_twin(net, LIF(0.5, surrogate=ATan(2.0), detach_reset=True))
    check_learned(model)
    with record(model) as a, record(ours) as b:
        torch.testing.assert_close(model(x), ours(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(next(iter(a.values())).v, next(iter(b.values())).v)
    check_attacked_alike(model, ours)


NETS = {
    "subtract": hidden,
    "zero": lambda: hidden(reset_mechanism="zero"),
    "narrow": lambda: hidden(spike_grad=surrogate.fast_sigmoid(slope=25)),
    "explicit": lambda: seeded(Explicit()),
}


@pytest.mark.parametrize("name", NETS)
def test_every_network_is_driven_swapped_and_recorded(name):
    model = sg.foreign(NETS[name](), T=T).eval()
    check_driven_and_swapped(model, "snntorch", "inside" if name == "explicit" else "steps")
    check_recorded(model)


def test_the_default_surrogate_is_our_arctangent():
    x, y = TEST
    model = sg.foreign(hidden(), T=T).eval()
    _, own = BACKPROP(model, x, y, cross_entropy)
    _, same = SwapSurrogate(ATan(2.0))(model, x, y, cross_entropy)
    torch.testing.assert_close(same, own, rtol=1e-3, atol=1e-6)


def test_potentials_as_the_output():
    x, _ = TEST
    net = seeded(Explicit())
    _, potentials = net(x)
    model = sg.foreign(net, T=T, readout="max", output=1).eval()
    torch.testing.assert_close(model(x), potentials.amax(0))


def test_other_neurons_are_driven_and_not_recorded():
    x, y = TEST
    neuron = snn.Synaptic(alpha=0.5, beta=0.9, init_hidden=True)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), neuron, nn.Linear(48, 10))
    model = sg.foreign(seeded(net), T=T).eval()
    assert torch.equal(model(x), model(x))
    assert SwapSurrogate(2.0)(model, x, y, cross_entropy)[1].abs().amax() > 0
    with record(model), pytest.raises(ForeignError, match="only Leaky can be recorded"):
        model(x)


def test_rate_coding_is_rejected():
    """It is random, and its gradient is exactly zero although the tensor requires one."""
    x, y = TEST
    rated = sg.foreign(seeded(Rated()), T=T).eval()
    with torch.random.fork_rng(devices=[]):
        _, grad = BACKPROP(rated, x, y, cross_entropy)
        assert grad.abs().amax() == 0
        with pytest.raises(ValueError, match="draws from torch's global generator"):
            sg.check(rated, x, y)


def test_without_the_adapter_states_leak():
    x, y = TEST
    with pytest.raises(ValueError, match=r"spikeguard\.foreign"):
        sg.check(hidden().eval(), x, y)

"""Norse's networks, attacked through the adapter."""

import warnings

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import RGA, cross_entropy
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream
from tests.peers.foreign import (
    TEST,
    T,
    X,
    Y,
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
    norse = pytest.importorskip("norse.torch", reason="Norse is missing: make bench-peers")
    box = pytest.importorskip("norse.torch.module.lif_box")

P = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), tau_syn_inv=torch.tensor(500.0))


def seeded(net, scale=1.0):
    return drawn(net, scale, stream(0, "peer"))


def cells(neuron):
    return norse.SequentialState(
        nn.Flatten(), nn.Linear(64, 48), neuron, nn.Linear(48, 10), norse.LICell()
    )


class Inside(nn.Module):
    """The loop of the documentation: states are passed on inside forward."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(64, 48), nn.Linear(48, 10)
        # dt / tau = 1 / 2: v + (I - v) / 2, our decay 1/2 with half of the current
        half = box.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), method="triangle", alpha=1.0)
        self.neuron = box.LIFBoxCell(half)

    def forward(self, x):
        state, out = None, []
        for _ in range(T):
            spikes, state = self.neuron(self.first(x.flatten(1)), state)
            out.append(self.last(spikes))
        return torch.stack(out)


NETS = {
    "cells": lambda: cells(norse.LIFCell(P)),
    "recurrent": lambda: cells(norse.LIFRecurrentCell(48, 48, P)),
    "inside": Inside,
    "sequence": lambda: norse.SequentialState(
        nn.Flatten(2), nn.Linear(64, 48), norse.LIF(P), nn.Linear(48, 10), norse.LI()
    ),
}
SHOWN = {"cells": "steps", "recurrent": "steps", "inside": "inside", "sequence": "sequence"}


@pytest.mark.parametrize("name", NETS)
def test_every_network_is_driven_and_swapped(name):
    model = sg.foreign(seeded(NETS[name]()), T=T, readout="max").eval()
    check_driven_and_swapped(model, "norse", SHOWN[name], 2.0, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["cells", "inside", "sequence"])
def test_membranes_are_recorded(name):
    model = sg.foreign(seeded(NETS[name]()), T=T, readout="max").eval()
    (seen,) = check_recorded(model, TEST[0])  # the integrator at the end is no spiking layer
    assert seen.v.shape == (T, 128, 48)


def test_a_time_constant_for_every_neuron_has_the_axes_of_the_potentials():
    slow = torch.linspace(100, 900, 48)
    model = sg.foreign(cells(norse.LIFCell(P._replace(tau_mem_inv=slow))), T=T, readout="max")
    (neuron,) = model.eval().spiking_layers().values()
    known = neuron.recurrence()
    assert known.decay.shape == known.gain.shape == (1, 1, 48)
    torch.testing.assert_close(known.decay[0, 0], 1 - 1e-3 * slow)
    losses, grad = RGA()(model, X, Y, cross_entropy)
    assert torch.isfinite(losses).all() and torch.isfinite(grad).all()


def test_a_box_cell_is_our_neuron_and_is_attacked_alike():
    net = trained(seeded(Inside(), 0.4))
    model, (x, _) = sg.foreign(net, T=T).eval(), TEST
    ours = our_twin(net, LIF(0.5, surrogate=Triangular(1.0), input_scale=0.5))
    check_learned(model)
    torch.testing.assert_close(model(x), ours(x), rtol=0, atol=1e-4)
    check_attacked_alike(model, ours)

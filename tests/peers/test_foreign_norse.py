"""Norse's networks, attacked through the adapter."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeguard as sg
from spikeguard.attacks import PGD, Linf, SwapSurrogate, cross_entropy
from spikeguard.attacks.gradient import BACKPROP
from spikeguard.models import MLP
from spikeguard.neurons import LIF, Triangular, record
from spikeguard.rng import stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    norse = pytest.importorskip("norse.torch", reason="Norse is missing: make bench-peers")
    box = pytest.importorskip("norse.torch.module.lif_box")

T, EPS = 4, 0.1
P = norse.LIFParameters(tau_mem_inv=torch.tensor(300.0), tau_syn_inv=torch.tensor(500.0))


def seeded(net, scale=1.0):
    generator = stream(0, "peer")
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return net


def cells(neuron):
    return norse.SequentialState(
        nn.Flatten(), nn.Linear(64, 48), neuron, nn.Linear(48, 10), norse.LICell()
    )


class Inside(nn.Module):
    """The loop of the documentation: states are handed on inside forward."""

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


@pytest.fixture(scope="module")
def digits():
    data = sg.data.load("digits")
    return data.train.batch(slice(None)), data.test.batch(slice(128))


@pytest.mark.parametrize("name", NETS)
def test_every_network_is_driven_and_swapped(name, digits):
    _, (x, y) = digits
    x, y = x[:16], y[:16]
    model = sg.foreign(seeded(NETS[name]()), T=T, readout="max").eval()
    first = model(x)
    assert torch.equal(model(x), first)
    torch.testing.assert_close(model(x[:5]), first[:5], rtol=1e-4, atol=1e-5)
    assert (model.framework, model.presentation) == ("norse", SHOWN[name])
    losses, own = BACKPROP(model, x, y, cross_entropy)
    assert own.abs().amax() > 0
    swapped, grad = SwapSurrogate(Triangular(2.0))(model, x, y, cross_entropy)
    assert torch.equal(swapped, losses)
    assert not torch.allclose(grad, own)
    assert torch.equal(BACKPROP(model, x, y, cross_entropy)[1], own)
    assert sg.check(model, x, y).driven["presentation"] == SHOWN[name]


@pytest.mark.parametrize("name", ["cells", "inside", "sequence"])
def test_membranes_are_recorded(name, digits):
    _, (x, _) = digits
    model = sg.foreign(seeded(NETS[name]()), T=T, readout="max").eval()
    with record(model) as trace:
        model(x)
    (seen,) = trace.values()  # the integrator at the end is no spiking layer
    assert seen.v.shape == (T, 128, 48)
    assert 0 < seen.spikes.detach().mean() < 1


def test_a_box_cell_is_our_neuron_and_is_attacked_alike(digits):
    net = seeded(Inside(), 0.4)
    model, ((x, y), test) = sg.foreign(net, T=T), digits
    optimiser, order = torch.optim.Adam(model.parameters(), 5e-3), stream(0, "order")
    for _ in range(8):
        for batch in torch.randperm(len(x), generator=order).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    ours = MLP(
        hidden=(48,),
        num_classes=10,
        T=T,
        in_shape=(1, 8, 8),
        neuron=LIF(0.5, surrogate=Triangular(1.0), input_scale=0.5),
    )
    values = iter(net.state_dict().values())
    own = ours.state_dict()
    ours.load_state_dict({k: v if k in ("mean", "std") else next(values) for k, v in own.items()})
    model.eval(), ours.eval()
    assert (model(test[0]).argmax(1) == test[1]).double().mean() > 0.85
    torch.testing.assert_close(model(test[0]), ours(test[0]), rtol=0, atol=1e-4)
    results = [sg.evaluate(m, test, {"pgd": PGD(Linf(EPS), steps=10)}) for m in (model, ours)]
    robust = [int(result.outcomes["pgd"].sum()) for result in results]
    assert abs(robust[0] - robust[1]) <= 2
    assert robust[0] < int(results[0].outcomes["clean"].sum()) - 20

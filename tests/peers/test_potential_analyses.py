"""Analyses of potentials on networks of three frameworks, and on our twin of one of them."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import Flips, Noise, Potentials, Traces
from spikeguard.attacks import FGSM, Linf
from spikeguard.neurons import LIF, ATan
from spikeguard.rng import stream
from tests.peers.foreign import TEST, T, our_twin
from tests.toys.fitting import drawn
from tests.toys.single_neurons import Negative

ATTACK = FGSM(Linf(0.1))
REASON = "{} is missing: make bench-peers"


def imported(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=REASON.format(name))


def spikingjelly():
    neuron = imported("spikingjelly.activation_based.neuron")
    layer = imported("spikingjelly.activation_based.layer")
    return nn.Sequential(
        layer.Flatten(step_mode="m"),
        layer.Linear(64, 48, step_mode="m"),
        neuron.LIFNode(tau=2.0, decay_input=False, detach_reset=False, step_mode="m"),
        layer.Linear(48, 10, step_mode="m"),
    )


def snntorch():
    leaky = imported("snntorch").Leaky(beta=0.5, init_hidden=True)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), leaky, nn.Linear(48, 10))


def norse():
    torch_part = imported("norse.torch")
    return torch_part.SequentialState(
        nn.Flatten(), nn.Linear(64, 48), torch_part.LIFBoxCell(), nn.Linear(48, 10)
    )


@pytest.mark.parametrize("framework", [spikingjelly, snntorch, norse], ids=lambda f: f.__name__)
def test_potentials_can_be_analysed(framework):
    model = sg.foreign(drawn(framework(), 0.3, stream(0, "peer")), T=T).eval()
    counts = Potentials(ATTACK)(model, TEST)
    assert (counts["counts"].sum(-1) == 48 * 128).all()
    zero = int(np.flatnonzero(counts.axes["bin"] == 0)[0])
    assert counts["spikes"].sum() > 0
    np.testing.assert_array_equal(counts["counts"][..., zero:].sum(-1), counts["spikes"])
    flips = Flips(ATTACK)(model, TEST)
    assert 0 < flips.number("rate", layers="all layers") < 1
    assert flips["flips"][0, 0, zero:].sum() == flips["flips"][0, 1, :zero].sum() == 0
    assert abs(Noise()(model, TEST).number("deviation", layers="all layers")) < 4
    assert Traces(ATTACK)(model, TEST)["v"].shape == (4, 2, T)


def test_a_foreign_network_and_our_twin_have_the_same_flips():
    net = drawn(spikingjelly(), 0.3, stream(0, "peer"))
    ours = our_twin(net, LIF(0.5, surrogate=ATan()))
    with torch.no_grad():
        x, y = TEST
        torch.testing.assert_close(sg.foreign(net, T=T).eval()(x), ours(x), rtol=1e-4, atol=1e-4)
    for analysis in (Potentials(Negative()), Flips(Negative())):
        both = [analysis(model, (x, y)) for model in (sg.foreign(net, T=T).eval(), ours)]
        for name in both[0].quantities.keys() - {"active"}:  # the surrogates differ
            one, other = (each[name] for each in both)
            counted = one.dtype.kind == "i"  # a rounding may move a potential by one bin
            np.testing.assert_allclose(one, other, atol=2 if counted else 1e-3, err_msg=name)

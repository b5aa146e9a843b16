"""Perturbations in networks of other frameworks: the leak is read, the equations are checked."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import Gain, Perturbation
from spikeguard.attacks import FGSM, Linf
from spikeguard.rng import stream
from tests.toys.fitting import drawn

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
Y = torch.arange(6) % 3


def spikingjelly():
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason="make bench-peers")
    return neuron.LIFNode(tau=2.0, decay_input=True, v_threshold=0.3)


def snntorch(reset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snn = pytest.importorskip("snntorch", reason="make bench-peers")
    return snn.Leaky(beta=0.7, threshold=0.3, init_hidden=True, reset_mechanism=reset)


def measured(neuron):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), neuron, nn.Linear(12, 3))
    model = sg.foreign(drawn(net, 0.15, stream(0, "w")), T=4).eval()
    attack = FGSM(Linf(0.1))
    return Perturbation(attack, points=1)(model, (X, Y)), Gain(attack)(model, (X, Y))


@pytest.mark.parametrize("make", [spikingjelly, lambda: snntorch("zero")], ids=["jelly", "torch"])
def test_the_equations_hold_with_the_leak_and_gain_of_the_layer(make):
    found, gain = measured(make())
    assert found["rest"].max() < 1e-5 and found["reset"].max() > 0
    np.testing.assert_allclose(found["plain_error_by_step"][0, 1, :, 0], 0, atol=1e-5)
    assert gain["neurons"].min() > 0


def test_a_reset_after_the_leak_is_reported_as_unexplained():
    found, _ = measured(snntorch("subtract"))
    assert found["rest"].max() > 0.05
    np.testing.assert_allclose(found["plain_error_by_step"][0, 1, :, 0], 0, atol=1e-5)

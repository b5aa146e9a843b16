"""The audit comes to a verdict about networks made with the frameworks themselves."""

import warnings

import pytest
from torch import nn

import spikeguard as sg
from spikeguard.data.datasets import load
from spikeguard.rng import stream
from tests.toys.fitting import drawn, fitted

DIGITS = load("digits", test_limit=200)  # as many as the checks need to decide


def jelly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their import only; the audit runs outside
        neuron = pytest.importorskip(
            "spikingjelly.activation_based.neuron",
            reason="SpikingJelly is missing: make bench-peers",
        )
    return neuron.LIFNode(tau=2.0, decay_input=False, detach_reset=False)


def torch_like():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of their import only
        snn = pytest.importorskip("snntorch", reason="snnTorch is missing: make bench-peers")
    return snn.Leaky(beta=0.5, init_hidden=True)


@pytest.mark.parametrize("neuron", [jelly, torch_like])
def test_a_network_of_another_framework_gets_a_verdict(neuron):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), neuron(), nn.Linear(32, 10))
    model = sg.foreign(drawn(net, 0.2, stream(0, "foreign")), T=4)
    fitted(model, DIGITS.train.batch(slice(None)), 4, stream(0, "order"))
    data = DIGITS.test.batch(slice(None))
    verdict = sg.audit(model, data, threat=sg.Linf(0.1), budget="quick", attack_steps=5)
    assert verdict.status in ("no fault found", "faulty"), verdict.sentence
    said = {found.code: found.status for found in verdict.findings}
    assert said["S4"] in ("pass", "fail"), verdict.table()

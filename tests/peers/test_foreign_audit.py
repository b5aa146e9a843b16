"""The audit comes to a verdict about networks made with the frameworks themselves."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeguard as sg
from spikeguard.data import load
from spikeguard.rng import stream

DIGITS = load("digits", test_limit=24)


def jelly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        neuron = pytest.importorskip(
            "spikingjelly.activation_based.neuron",
            reason="SpikingJelly is missing: make bench-peers",
        )
    return neuron.LIFNode(tau=2.0, decay_input=False, detach_reset=False)


def torch_like():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snn = pytest.importorskip("snntorch", reason="snnTorch is missing: make bench-peers")
    return snn.Leaky(beta=0.5, init_hidden=True)


@pytest.mark.parametrize("neuron", [jelly, torch_like])
def test_a_network_of_another_framework_gets_a_verdict(neuron):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), neuron(), nn.Linear(32, 10))
    model, (x, y) = sg.foreign(net, T=4), DIGITS.train.batch(slice(None))
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=stream(0, "foreign")) * 0.2)
    optimiser, order = torch.optim.Adam(net.parameters(), 5e-3), stream(0, "order")
    for _ in range(4):
        for batch in torch.randperm(len(x), generator=order).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    data = DIGITS.test.batch(slice(None))
    verdict = sg.audit(model.eval(), data, threat=sg.Linf(0.1), budget="quick", attack_steps=5)
    assert verdict.status in ("reliable", "unreliable"), verdict.sentence
    said = {found.code: found.status for found in verdict.findings}
    assert said["S4"] in ("pass", "fail"), verdict.table()

"""Analysis ``overhead``: the plain network, and the ratio of known times."""

import pytest
import torch
from torch import nn

from spikeguard.analysis import Overhead, plain_twin
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.overhead import time_ratios
from spikeguard.models import CNN
from spikeguard.neurons import DLIF, IF, LIF, PLIF, NoisyLIF, Sigmoid
from spikeguard.rng import stream

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))


def network(neuron):
    return CNN(1, 3, 3, width=4, hidden=6, image_size=8, neuron=neuron).eval()


def neurons(model):
    return [m for m in model.modules() if isinstance(m, LIF | NoisyLIF | IF | PLIF | DLIF)]


def test_the_plain_network_keeps_weights_threshold_reset_and_surrogate():
    model = network(
        NoisyLIF(0.7, 0.4, 0.9, surrogate=Sigmoid(3.0), reset="soft", detach_reset=True)
    )
    twin = plain_twin(model)
    assert {type(n) for n in neurons(twin)} == {LIF} and len(neurons(twin)) == 4
    for plain in neurons(twin):
        assert (plain.decay, plain.v_th, plain.reset) == (0.7, 0.9, "soft")
        assert plain.detach_reset and plain.surrogate == Sigmoid(3.0)
    assert twin.state_dict().keys() == model.state_dict().keys()
    assert {type(n) for n in neurons(model)} == {NoisyLIF}
    quiet = network(NoisyLIF(0.7, 0.0, 0.9, surrogate=Sigmoid(3.0), reset="soft"))
    assert torch.equal(plain_twin(quiet)(X), quiet(X))


def test_lif_and_if_stay_and_a_learned_leak_becomes_a_number():
    assert {type(n) for n in neurons(plain_twin(network(IF())))} == {IF}
    kept = plain_twin(network(LIF(0.5, v_reset=-0.5)))
    assert {n.v_reset for n in neurons(kept)} == {-0.5}
    learned = plain_twin(network(PLIF(0.3)))
    assert {round(n.decay, 6) for n in neurons(learned)} == {0.3}


def test_a_network_without_our_neurons_is_rejected():
    with pytest.raises(NotApplicable, match="neurons of SpikeGuard"):
        plain_twin(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))


def test_short_calls_are_repeated_and_the_order_changes(monkeypatch):
    now, called = [0.0], []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("spikeguard.analysis.overhead.time.process_time", lambda: now[0])

    def call(name, seconds):
        called.append(name)
        now[0] += seconds

    times = time_ratios(lambda: call("a", 0.5), lambda: call("b", 0.25), rounds=3, shortest=1.0)
    assert "".join(called) == "ab" + "a" + "bbaa" + "aabb" + "bbaa"
    assert times.tolist() == [[0.5, 0.25]] * 3


def test_the_ratio_is_that_of_the_times(monkeypatch):
    """The clock is replaced: a call of the network takes 3 s, of the plain one 2 s."""
    now = [0.0]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("spikeguard.analysis.overhead.time.process_time", lambda: now[0])
    model = network(NoisyLIF(0.5, 0.4, 0.3))

    def slow(module, given):
        now[0] += 3.0 if any(isinstance(m, NoisyLIF) for m in module.modules()) else 2.0

    model.register_forward_pre_hook(slow)  # copied with the network
    found = Overhead(limit=4, rounds=7)(model, (X, torch.zeros(6, dtype=torch.int64)))
    assert found["ratio"].tolist() == [[1.5, 1.5, 1.5]] * 2 and found.samples == 4
    assert found["seconds"].tolist() == [[3, 2], [3, 2]]
    assert found["neurons"].tolist() == ["NoisyLIF"]
    assert Overhead.result({"n": found}) == "Inference time by that of the plain network: 1.50"
    assert Overhead.table({"n": found}).rows[0][2] == "1.50 [1.50, 1.50]"


def test_fewer_than_six_rounds_are_rejected():
    with pytest.raises(ValueError, match="rounds is a number >= 6, got 5"):
        Overhead(rounds=5)

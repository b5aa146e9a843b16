"""SpikingJelly's networks through the adapter: the same as our twin with their weights."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import Synchrony
from spikeguard.attacks import MembraneReadout, SwapSurrogate, cross_entropy, margin
from spikeguard.neurons import LIF, Sigmoid, record
from spikeguard.rng import stream
from tests.peers import foreign
from tests.peers.foreign import (
    TEST,
    T,
    X,
    Y,
    check_attacked_alike,
    check_driven_and_swapped,
    check_learned,
    check_recorded,
    check_ruled_alike,
    our_twin,
)
from tests.toys.fitting import drawn
from tests.toys.fitting import twin as with_weights

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    base = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="SpikingJelly is missing: make bench-peers"
    )
    layer = pytest.importorskip("spikingjelly.activation_based.layer")


def network(neuron, mode="m"):
    """Return linear - neuron - linear on 8 x 8 images; both step modes share their weights."""
    net = nn.Sequential(
        layer.Flatten(step_mode=mode),
        layer.Linear(64, 48, step_mode=mode),
        neuron(step_mode=mode),
        layer.Linear(48, 10, step_mode=mode),
    )
    return drawn(net, 0.2, stream(0, "peer"))


def hard(**options):
    return base.LIFNode(tau=2.0, decay_input=False, detach_reset=False, **options)


@pytest.fixture(scope="module")
def trained():
    """Return a trained network, as a user would pass it."""
    return foreign.trained(network(hard))


@pytest.fixture(scope="module")
def twin(trained):
    """Return our network with the same weights and the same surrogate."""
    return our_twin(trained, LIF(0.5, surrogate=Sigmoid(4.0)))


def test_it_learned_something(trained):
    model = sg.foreign(trained, T=T).eval()
    check_learned(model)
    assert sg.check(model, *TEST).driven["framework"] == "spikingjelly"


def test_our_twin_gives_the_same_logits_and_potentials(trained, twin):
    model, (x, _) = sg.foreign(trained, T=T).eval(), TEST
    with record(model) as theirs, record(twin) as ours:
        torch.testing.assert_close(model(x), twin(x), rtol=0, atol=1e-5)
    (a,), (b,) = theirs.values(), ours.values()
    torch.testing.assert_close(a.v, b.v, rtol=0, atol=1e-5)
    assert torch.equal(a.spikes, b.spikes)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_one_image_per_step_gives_the_logits_of_our_twin(mode):
    net = network(hard, mode)
    frames = torch.randn(T, 9, 1, 8, 8, generator=stream(1, "frames"))
    expected = our_twin(net, LIF(0.5))(frames)
    found = sg.foreign(net, T=T).eval().present(frames)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found, our_twin(net, LIF(0.5))(frames[:1].expand_as(frames)))


def test_synchrony_is_that_of_our_twin(trained, twin):
    """The layer's name is another one, and with it the shuffled trains."""
    theirs, ours = (Synchrony(limit=32)(m, TEST) for m in (sg.foreign(trained, T=T).eval(), twin))
    assert 0 < theirs["images"][2] <= theirs["images"][1]
    for name in ("failures", "images", "mean"):
        seen, expected = (m[name][..., 0] if name == "mean" else m[name] for m in (theirs, ours))
        np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_an_attack_leaves_as_much_as_on_our_twin(trained, twin):
    check_attacked_alike(sg.foreign(trained, T=T).eval(), twin)


NODES = {
    "hard": hard,
    "hard, input scaled": lambda **o: base.LIFNode(tau=2.0, **o),
    "detached": lambda **o: base.LIFNode(tau=3.0, detach_reset=True, **o),
    "soft": lambda **o: base.LIFNode(tau=2.0, v_reset=None, **o),
    "below zero": lambda **o: base.LIFNode(tau=2.0, v_reset=-0.25, v_threshold=0.5, **o),
    "no leak": base.IFNode,
    "learned leak": base.ParametricLIFNode,
}


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_every_node_is_driven_swapped_and_recorded(node, mode):
    model = sg.foreign(network(NODES[node], mode), T=T).eval()
    own = check_driven_and_swapped(model, "spikingjelly", "sequence" if mode == "m" else "steps")
    _, same = SwapSurrogate(Sigmoid(4.0))(model, X, Y, cross_entropy)
    torch.testing.assert_close(same, own, rtol=1e-3, atol=1e-6)
    (seen,) = check_recorded(model)
    assert seen.v.shape == (T, 16, 48)


OURS = {
    "hard": LIF(0.5),
    "hard, input scaled": LIF(0.5, input_scale=0.5),
    "detached": LIF(2 / 3, input_scale=1 / 3, detach_reset=True),
    "soft": LIF(0.5, input_scale=0.5, reset="soft"),
    "below zero": LIF(0.5, v_th=0.75, input_scale=0.5),
    "no leak": LIF(1.0),
    "learned leak": LIF(0.5, input_scale=0.5),
}


@pytest.mark.parametrize("node", NODES)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_every_rule_gives_the_gradient_of_our_twin_through_two_layers(node, mode):
    """Leaks, resets and scaled inputs; called step by step, and with all steps at once."""
    net = nn.Sequential(
        layer.Flatten(step_mode=mode),
        layer.Linear(64, 48, step_mode=mode),
        NODES[node](step_mode=mode),
        layer.Linear(48, 32, step_mode=mode),
        NODES[node](step_mode=mode),
        layer.Linear(32, 10, step_mode=mode),
    )
    linear = drawn(nn.Sequential(*(m for m in net if hasattr(m, "weight"))), 0.6, stream(0, "two"))
    ours = with_weights(linear, OURS[node], T=T, hidden=(48, 32), in_shape=(1, 8, 8))
    check_ruled_alike(sg.foreign(net, T=T).eval(), ours)


def test_without_the_adapter_states_leak():
    """The reason for the check: a bare single-step network keeps state from the first call."""
    with pytest.raises(ValueError, match=r"spikeguard\.foreign"):
        sg.check(network(hard, "s").eval(), *TEST)


def test_an_encoder_that_samples_is_rejected():
    from spikingjelly.activation_based import encoding

    net = nn.Sequential(encoding.PoissonEncoder(), *network(hard, "s"))
    fresh = torch.random.fork_rng(devices=[])
    with fresh, pytest.raises(ValueError, match="draws from torch's global generator"):
        sg.check(sg.foreign(net, T=T).eval(), *TEST)


@pytest.mark.parametrize("mode", ["s", "m"])
def test_votes_are_attacked_through_the_potentials_of_their_neurons(mode):
    """One step from rest, no input decay: a class has the mean of ten linear units."""
    net = nn.Sequential(
        layer.Flatten(step_mode=mode),
        layer.Linear(64, 100, step_mode=mode),
        hard(step_mode=mode),
        layer.VotingLayer(10, step_mode=mode),
    )
    model = sg.foreign(drawn(net, 0.2, stream(0, "votes")).eval(), T=1)
    x, y = (part[:6] for part in TEST)
    potentials = net[1].weight.view(10, 10, 64).mean(1) @ x.flatten(1).T
    potentials = (potentials + net[1].bias.view(10, 10).mean(1)[:, None]).T
    losses, _ = MembraneReadout()(model, x, y, margin)
    torch.testing.assert_close(losses, margin(potentials, y))

"""SpikingJelly's networks through the adapter: the same as our twin with their weights."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeguard as sg
from spikeguard.attacks import PGD, Linf, SwapSurrogate, cross_entropy
from spikeguard.attacks.gradient import BACKPROP
from spikeguard.models import MLP
from spikeguard.neurons import LIF, Sigmoid, Triangular, record
from spikeguard.rng import stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    base = pytest.importorskip(
        "spikingjelly.activation_based.neuron", reason="SpikingJelly is missing: make bench-peers"
    )
    layer = pytest.importorskip("spikingjelly.activation_based.layer")

T, EPS = 4, 0.1


def network(neuron, mode="m"):
    """Return linear - neuron - linear on 8 x 8 images; both step modes share their weights."""
    net = nn.Sequential(
        layer.Flatten(step_mode=mode),
        layer.Linear(64, 48, step_mode=mode),
        neuron(step_mode=mode),
        layer.Linear(48, 10, step_mode=mode),
    )
    generator = stream(0, "peer")
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return net


def hard(**options):
    return base.LIFNode(tau=2.0, decay_input=False, detach_reset=False, **options)


@pytest.fixture(scope="module")
def digits():
    data = sg.data.load("digits")
    return data.train.batch(slice(None)), data.test.batch(slice(128))


@pytest.fixture(scope="module")
def trained(digits):
    """Return a network trained for two seconds, as the user would hand it over."""
    net = network(hard)
    model, ((x, y), _) = sg.foreign(net, T=T), digits
    optimiser, order = torch.optim.Adam(model.parameters(), 5e-3), stream(0, "order")
    for _ in range(8):
        for batch in torch.randperm(len(x), generator=order).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def twin(trained):
    """Return our network with the same weights and the same surrogate."""
    ours = MLP(
        hidden=(48,),
        num_classes=10,
        T=T,
        in_shape=(1, 8, 8),
        neuron=LIF(0.5, surrogate=Sigmoid(4.0)),
    )
    values = iter(trained.state_dict().values())
    own = ours.state_dict()
    ours.load_state_dict({k: v if k in ("mean", "std") else next(values) for k, v in own.items()})
    return ours.eval()


def test_it_learned_something(trained, digits):
    model, (_, (x, y)) = sg.foreign(trained, T=T).eval(), digits
    assert (model(x).argmax(1) == y).double().mean() > 0.85
    assert sg.check(model, x, y).driven["framework"] == "spikingjelly"


def test_our_twin_gives_the_same_logits_and_potentials(trained, twin, digits):
    model, (_, (x, _)) = sg.foreign(trained, T=T).eval(), digits
    with record(model) as theirs, record(twin) as ours:
        torch.testing.assert_close(model(x), twin(x), rtol=0, atol=1e-5)
    (a,), (b,) = theirs.values(), ours.values()
    torch.testing.assert_close(a.v, b.v, rtol=0, atol=1e-5)
    assert torch.equal(a.spikes, b.spikes)


def test_an_attack_leaves_as_much_as_on_our_twin(trained, twin, digits):
    """At most two of 128 images are decided by rounding."""
    _, data = digits
    suite = {"pgd": PGD(Linf(EPS), steps=10)}
    theirs, ours = (
        sg.evaluate(model, data, suite) for model in (sg.foreign(trained, T=T).eval(), twin)
    )
    robust = [int(result.outcomes["pgd"].sum()) for result in (theirs, ours)]
    assert abs(robust[0] - robust[1]) <= 2
    assert robust[0] < int(theirs.outcomes["clean"].sum()) - 20


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
def test_every_node_is_driven_swapped_and_recorded(node, mode, digits):
    _, (x, y) = digits
    x, y = x[:16], y[:16]
    model = sg.foreign(network(NODES[node], mode), T=T).eval()
    first = model(x)
    assert torch.equal(model(x), first)
    torch.testing.assert_close(model(x[:5]), first[:5])
    assert model.presentation == ("sequence" if mode == "m" else "steps")
    losses, own = BACKPROP(model, x, y, cross_entropy)
    assert own.abs().amax() > 0
    swapped, grad = SwapSurrogate(Triangular(1.0))(model, x, y, cross_entropy)
    assert torch.equal(swapped, losses)
    assert not torch.allclose(grad, own)
    _, same = SwapSurrogate(Sigmoid(4.0))(model, x, y, cross_entropy)
    torch.testing.assert_close(same, own, rtol=1e-3, atol=1e-6)
    with record(model) as trace:
        model(x)
    (seen,) = trace.values()
    assert seen.v.shape == (T, 16, 48)
    assert 0 < seen.spikes.detach().mean() < 1


def test_without_the_adapter_states_leak(digits):
    """What the check is for: a bare single-step network remembers the first call."""
    _, (x, y) = digits
    with pytest.raises(ValueError, match=r"spikeguard\.foreign"):
        sg.check(network(hard, "s").eval(), x, y)


def test_an_encoder_that_samples_is_refused(digits):
    from spikingjelly.activation_based import encoding

    _, (x, y) = digits
    net = nn.Sequential(encoding.PoissonEncoder(), *network(hard, "s"))
    fresh = torch.random.fork_rng(devices=[])
    with fresh, pytest.raises(ValueError, match="draws from torch's global generator"):
        sg.check(sg.foreign(net, T=T).eval(), x, y)

"""snnTorch's networks, attacked through the adapter."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

import spikeguard as sg
from spikeguard.attacks import PGD, Linf, SwapSurrogate, cross_entropy
from spikeguard.attacks.gradient import BACKPROP
from spikeguard.models import MLP
from spikeguard.models.adapters import ForeignError
from spikeguard.neurons import LIF, ATan, Triangular, record
from spikeguard.rng import stream

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    snn = pytest.importorskip("snntorch", reason="snnTorch is missing: make bench-peers")
    surrogate = pytest.importorskip("snntorch.surrogate")
    spikegen = pytest.importorskip("snntorch.spikegen")

T, EPS = 4, 0.1


def seeded(net):
    generator = stream(0, "peer")
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.2)
    return net


def hidden(**options):
    """A network whose loop over time is outside."""
    leaky = snn.Leaky(beta=0.5, init_hidden=True, **options)
    return seeded(nn.Sequential(nn.Flatten(), nn.Linear(64, 48), leaky, nn.Linear(48, 10)))


class Explicit(nn.Module):
    """As in the tutorials: the loop is inside, spikes and potentials come out."""

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


@pytest.fixture(scope="module")
def digits():
    data = sg.data.load("digits")
    return data.train.batch(slice(None)), data.test.batch(slice(128))


@pytest.fixture(scope="module")
def trained(digits):
    net = hidden(reset_mechanism="zero")
    model, ((x, y), _) = sg.foreign(net, T=T), digits
    optimiser, order = torch.optim.Adam(model.parameters(), 5e-3), stream(0, "order")
    for _ in range(8):
        for batch in torch.randperm(len(x), generator=order).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return net.eval()


def test_reset_to_zero_is_our_hard_reset_detached(trained, digits):
    """The reset comes one step later, before the leak: the same recurrence."""
    ours = MLP(
        hidden=(48,),
        num_classes=10,
        T=T,
        in_shape=(1, 8, 8),
        neuron=LIF(0.5, surrogate=ATan(2.0), detach_reset=True),
    )
    state = trained.state_dict()
    values = iter([state[k] for k in ("1.weight", "1.bias", "3.weight", "3.bias")])
    own = ours.state_dict()
    ours.load_state_dict({k: v if k in ("mean", "std") else next(values) for k, v in own.items()})
    ours.eval()
    model, (_, (x, y)) = sg.foreign(trained, T=T).eval(), digits
    assert (model(x).argmax(1) == y).double().mean() > 0.85
    with record(model) as a, record(ours) as b:
        torch.testing.assert_close(model(x), ours(x), rtol=0, atol=1e-5)
    torch.testing.assert_close(next(iter(a.values())).v, next(iter(b.values())).v)
    results = [sg.evaluate(m, (x, y), {"pgd": PGD(Linf(EPS), steps=10)}) for m in (model, ours)]
    robust = [int(result.outcomes["pgd"].sum()) for result in results]
    assert abs(robust[0] - robust[1]) <= 2
    assert robust[0] < int(results[0].outcomes["clean"].sum()) - 20


NETS = {
    "subtract": hidden,
    "zero": lambda: hidden(reset_mechanism="zero"),
    "narrow": lambda: hidden(spike_grad=surrogate.fast_sigmoid(slope=25)),
    "explicit": lambda: seeded(Explicit()),
}


@pytest.mark.parametrize("name", NETS)
def test_every_network_is_driven_swapped_and_recorded(name, digits):
    _, (x, y) = digits
    x, y = x[:16], y[:16]
    model = sg.foreign(NETS[name](), T=T).eval()
    first = model(x)
    assert torch.equal(model(x), first)
    torch.testing.assert_close(model(x[:5]), first[:5])
    assert model.presentation == ("inside" if name == "explicit" else "steps")
    losses, own = BACKPROP(model, x, y, cross_entropy)
    assert own.abs().amax() > 0
    swapped, grad = SwapSurrogate(Triangular(1.0))(model, x, y, cross_entropy)
    assert torch.equal(swapped, losses)
    assert not torch.allclose(grad, own)
    with record(model) as trace:
        model(x)
    for layer in trace.values():
        assert layer.v.shape[:2] == (T, 16)
    assert 0 < next(iter(trace.values())).spikes.detach().mean() < 1
    assert sg.check(model, x, y).driven["framework"] == "snntorch"


def test_the_default_surrogate_is_our_arctangent(digits):
    _, (x, y) = digits
    model = sg.foreign(hidden(), T=T).eval()
    _, own = BACKPROP(model, x, y, cross_entropy)
    _, same = SwapSurrogate(ATan(2.0))(model, x, y, cross_entropy)
    torch.testing.assert_close(same, own, rtol=1e-3, atol=1e-6)


def test_potentials_as_the_output(digits):
    _, (x, _) = digits
    net = seeded(Explicit())
    _, potentials = net(x)
    model = sg.foreign(net, T=T, readout="max", output=1).eval()
    torch.testing.assert_close(model(x), potentials.amax(0))


def test_other_neurons_are_driven_and_not_recorded(digits):
    _, (x, y) = digits
    neuron = snn.Synaptic(alpha=0.5, beta=0.9, init_hidden=True)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 48), neuron, nn.Linear(48, 10))
    model = sg.foreign(seeded(net), T=T).eval()
    assert torch.equal(model(x), model(x))
    assert SwapSurrogate(2.0)(model, x, y, cross_entropy)[1].abs().amax() > 0
    with record(model), pytest.raises(ForeignError, match="only Leaky can be recorded"):
        model(x)


def test_rate_coding_is_refused(digits):
    """It is random, and its gradient is exactly zero although the tensor requires one."""
    _, (x, y) = digits
    rated = sg.foreign(seeded(Rated()), T=T).eval()
    with torch.random.fork_rng(devices=[]):
        _, grad = BACKPROP(rated, x, y, cross_entropy)
        assert grad.abs().amax() == 0
        with pytest.raises(ValueError, match="draws from torch's global generator"):
            sg.check(rated, x, y)


def test_without_the_adapter_states_leak(digits):
    _, (x, y) = digits
    with pytest.raises(ValueError, match=r"spikeguard\.foreign"):
        sg.check(hidden().eval(), x, y)

"""Rules on foreign layers: the gradients equal those of a native network with the same weights."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import (
    BPTR,
    HART,
    PDSG,
    PGD,
    RGA,
    ANNTwin,
    Backprop,
    Linf,
    NoGradientError,
    cross_entropy,
    suitable,
    suite,
)
from spikeguard.attacks.gradients.base import BACKPROP
from spikeguard.attacks.gradients.spiking_rules import differentiate, prescribable
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.neurons import LIF, Prescription, spiking_layers
from spikeguard.rng import stream
from tests.toys.fitting import drawn, twin
from tests.toys.foreign_networks import Leaky, LIFNode, MisnamedLIFNode, of_package

T = 4
X = torch.rand(6, 1, 4, 4, generator=stream(0, "x"))
Y = torch.arange(6) % 3
RULES = {
    "bptr": BPTR(),
    "rga": RGA(),
    "hart": HART(),
    "narrow hart": HART(0.4),
    "pdsg": PDSG(),
    "twin": ANNTwin(),
    "twin of 3 levels": ANNTwin(3),
}


def network(make=LIFNode):
    net = nn.Sequential(
        *(nn.Flatten(), nn.Linear(16, 12), make(), nn.Linear(12, 9), make(), nn.Linear(9, 3))
    )
    return drawn(net, 0.8, stream(0, "cut"))


def ours(net, **options):
    return twin(net, LIF(0.5, **options), T=T, hidden=(12, 9), in_shape=(1, 4, 4))


def adapted(net):
    return sg.foreign(net, T=T).eval()


@pytest.mark.parametrize("rule", RULES)
def test_the_gradient_is_that_of_our_twin(rule):
    net = network()
    (losses, found), (same, wanted) = (
        RULES[rule](model, X, Y, cross_entropy) for model in (adapted(net), ours(net))
    )
    torch.testing.assert_close(losses, same, rtol=0, atol=1e-5)
    assert wanted.abs().amax() > 0
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_search_with_it_finds_what_it_finds_on_our_twin(rule):
    """Attacks run where gradients are off, and on a frozen network."""
    net = network()
    attack = PGD(Linf(0.1), steps=5, random_start=False, gradient=RULES[rule])
    found, wanted = (attack(model, X, Y) for model in (adapted(net), ours(net)))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert (found - X).abs().amax() > 0.09


@pytest.mark.parametrize("mechanism", ["subtract", "zero"])
def test_a_reset_that_is_always_detached_is_not_followed(mechanism):
    """snnTorch's backward pass is the rule with its own slope; its "zero" is a hard reset."""
    net = network(lambda: Leaky(reset_mechanism=mechanism))
    model = adapted(net)
    surrogate = next(iter(spiking_layers(model).values())).surrogate

    def own(fired):
        return Prescription(surrogate(fired.v - fired.v_th), temporal=True)

    _, ruled = differentiate("own", own, model, X, Y, cross_entropy)
    wanted = BACKPROP(model, X, Y, cross_entropy)[1]
    assert wanted.abs().amax() > 0
    torch.testing.assert_close(ruled, wanted, rtol=1e-4, atol=1e-6)
    found = PDSG()(model, X, Y, cross_entropy)[1]
    if mechanism == "zero":
        wanted = PDSG()(ours(net, detach_reset=True), X, Y, cross_entropy)[1]
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
        followed = PDSG()(ours(net), X, Y, cross_entropy)[1]
        assert not torch.allclose(found, followed, rtol=1e-2)


@pytest.mark.parametrize("rule", RULES)
def test_a_sample_does_not_see_its_neighbours_and_the_network_stays_as_it_was(rule):
    net = network()
    model = adapted(net)
    before = {name: part.clone() for name, part in net.state_dict().items()}
    logits = model(X)
    _, whole = RULES[rule](model, X, Y, cross_entropy)
    _, alone = RULES[rule](model, X[2:3], Y[2:3], cross_entropy)
    torch.testing.assert_close(whole[2:3], alone)
    assert torch.equal(model(X), logits)
    assert all(torch.equal(part, before[name]) for name, part in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())
    assert all(weight.grad is None for weight in net.parameters())


def test_with_the_slope_of_its_surrogate_a_rule_is_backpropagation():
    """With autograd's slope, cut, order and backward pass through time equal autograd's."""
    model = adapted(network())
    layers = spiking_layers(model)

    def own(fired):
        surrogate = next(iter(layers.values())).surrogate
        return Prescription(surrogate(fired.v - fired.v_th), temporal=True)

    losses, found = differentiate("own", own, model, X, Y, cross_entropy)
    same, wanted = BACKPROP(model, X, Y, cross_entropy)
    assert torch.equal(losses, same)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


class Skipping(nn.Module):
    """The second layer receives the first one's spikes and the image; so does the output."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 9), nn.Linear(9, 9), nn.Linear(16, 9)
        self.one, self.two, self.out = LIFNode(), LIFNode(), nn.Linear(9, 3)

    def forward(self, x):
        x = x.flatten(1)
        first = self.one(self.a(x))
        return self.out(first + self.two(self.b(first) + self.c(x)))


def test_side_paths_are_followed():
    model = adapted(drawn(Skipping(), 0.8, stream(0, "skip")))
    layers = spiking_layers(model)
    surrogate = next(iter(layers.values())).surrogate

    def own(fired):
        return Prescription(surrogate(fired.v - fired.v_th), temporal=True)

    _, found = differentiate("own", own, model, X, Y, cross_entropy)
    torch.testing.assert_close(found, BACKPROP(model, X, Y, cross_entropy)[1], rtol=1e-4, atol=1e-6)


@of_package("spikingjelly.toy")
class QIFNode(LIFNode):
    """A layer type with an unknown recurrence."""


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_says_which_layer_it_does_not_know(rule):
    model = adapted(network(QIFNode))
    assert not prescribable(model)
    with pytest.raises(ForeignError, match=r"\(QIFNode\): only IFNode"):
        RULES[rule](model, X, Y, cross_entropy)


@pytest.mark.parametrize("rule", [rule for rule in RULES if not rule.startswith("twin")])
def test_a_search_in_bfloat16_gets_the_gradient_of_float32(rule):
    """The spikes are recomputed from the potentials, which requires the same precision."""
    model = adapted(network())
    wanted = RULES[rule](model, X, Y, cross_entropy)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(RULES[rule](model, X, Y, cross_entropy)[1], wanted)


def test_layers_with_an_unknown_recurrence_are_rejected_and_their_attacks_dropped():
    model, every = adapted(network(MisnamedLIFNode)), suite("every", eps=0.1)
    with pytest.raises(ForeignError, match="potentials cannot be recorded"):
        RGA()(model, X, Y, cross_entropy)
    assert prescribable(model) and not prescribable(model, X)  # its stated recurrence is false
    needy = {f"pgd20/{name}" for name in ("bptr", "rga", "hart", "pdsg", "ann-twin", "membrane")}
    assert set(suitable(every, model, X)[1]) == needy
    assert set(suitable(every, adapted(network()), X)[1]) == {"pgd20/membrane"}
    assert not prescribable(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)))


class Deaf(nn.Module):
    """Its logits do not depend on anything that has a gradient."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        return self.net(x).detach()


def test_no_gradient_is_said_to_be_none():
    with pytest.raises(NoGradientError):
        Backprop()(adapted(Deaf()), X, Y, cross_entropy)
    with pytest.raises(NoGradientError):
        RGA()(adapted(Deaf()), X, Y, cross_entropy)

"""Checks of adapted networks of every framework, and the data that they use."""

import torch

import spikeguard as sg
from spikeguard.attacks import (
    ASSG,
    BPTR,
    HART,
    PDSG,
    PGD,
    RGA,
    ANNTwin,
    Linf,
    SwapSurrogate,
    cross_entropy,
)
from spikeguard.attacks.gradients.base import BACKPROP, start_search
from spikeguard.attacks.gradients.spiking_rules import prescribable
from spikeguard.neurons import Triangular, record
from spikeguard.rng import stream
from tests.toys.fitting import fitted, twin

T = 4
TRAIN = sg.data.load("digits").train.batch(slice(None))
TEST = sg.data.load("digits").test.batch(slice(128))
X, Y = (part[:16] for part in TEST)
RULES = (
    BPTR(),
    RGA(),
    RGA(0.7),
    HART(),
    HART(0.4),
    PDSG(),
    ANNTwin(),
    ANNTwin(3),
)


def trained(net):
    """Return a network of linear - neuron - linear, trained for two seconds behind the adapter."""
    fitted(sg.foreign(net, T=T), TRAIN, 8, stream(0, "order"))
    return net.eval()


def our_twin(net, neuron):
    """Return our network with the same weights."""
    return twin(net, neuron, T=T, hidden=(48,), in_shape=(1, 8, 8))


def check_driven_and_swapped(model, framework, presentation, width=1.0, **tolerance):
    """Calls agree, the presentation is detected, and a triangle can replace the surrogate.

    Returns the gradient with the network's own surrogate.
    """
    first = model(X)
    assert torch.equal(model(X), first)
    torch.testing.assert_close(model(X[:5]), first[:5], **tolerance)
    assert (model.framework, model.presentation) == (framework, presentation)
    losses, own = BACKPROP(model, X, Y, cross_entropy)
    assert own.abs().amax() > 0
    swapped, grad = SwapSurrogate(Triangular(width))(model, X, Y, cross_entropy)
    assert torch.equal(swapped, losses)
    assert not torch.allclose(grad, own)
    assert torch.equal(BACKPROP(model, X, Y, cross_entropy)[1], own)
    for rule in RULES if prescribable(model, X) else ():
        same, grad = rule(model, X, Y, cross_entropy)
        assert torch.equal(same, losses) and grad.abs().amax() > 0, rule
    driven = sg.check(model, X, Y).driven
    assert (driven["framework"], driven["presentation"]) == (framework, presentation)
    return own


def check_recorded(model, x=X):
    """The potentials of all spiking layers are recorded, and the first one fires; returns them."""
    with record(model) as trace:
        model(x)
    layers = list(trace.values())
    assert {layer.v.shape[:2] for layer in layers} == {(T, len(x))}
    assert 0 < layers[0].spikes.detach().mean() < 1
    return layers


def check_learned(model):
    x, y = TEST
    assert (model(x).argmax(1) == y).double().mean() > 0.85


def check_sharpened_alike(model, ours):
    """A search with ASSG gets the same gradients as on our twin, step by step."""
    searches = [(start_search(ASSG()), net) for net in (model, ours)]
    for step in range(4):
        x = (X + 0.02 * step).clamp(0, 1)
        theirs, own = (search(net, x, Y, cross_entropy)[1] for search, net in searches)
        scale = own.abs().amax()
        assert scale > 0
        torch.testing.assert_close(theirs / scale, own / scale, rtol=0, atol=1e-4)


def check_ruled_alike(model, ours):
    """Every rule gives the same gradient as on our twin, and leaves the network unchanged.

    Compared are the samples of which no spike was decided by rounding.
    """
    before = model(X)
    alike = (before - ours(X)).abs().amax(1) < 1e-4
    assert alike.double().mean() > 0.7
    for rule in RULES:
        found = (rule(net, X, Y, cross_entropy) for net in (model, ours))
        (losses, theirs), (same, own) = ((part[alike] for part in pair) for pair in found)
        scale = own.abs().amax()
        assert scale > 0
        torch.testing.assert_close(losses, same, rtol=0, atol=1e-4)
        torch.testing.assert_close(theirs / scale, own / scale, rtol=0, atol=1e-4, msg=str(rule))
    assert torch.equal(model(X), before)


def check_attacked_alike(model, ours):
    """An attack leaves equal accuracies, up to two of 128 images that rounding decides."""
    check_sharpened_alike(model, ours)
    check_ruled_alike(model, ours)
    suite = {"pgd": PGD(Linf(0.1), steps=10)}
    theirs, own = (sg.evaluate(each, TEST, suite) for each in (model, ours))
    robust = [int(result.outcomes["pgd"].sum()) for result in (theirs, own)]
    assert abs(robust[0] - robust[1]) <= 2
    assert robust[0] < int(theirs.outcomes["clean"].sum()) - 20

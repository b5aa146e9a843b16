"""The landscape around weights: slopes, invariance under filter scaling, restored weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import WeightLandscape
from spikeguard.analysis.base import NotApplicable, batches
from spikeguard.analysis.directions import length
from spikeguard.analysis.weight_landscape import moved_weights, weight_directions, weight_gradient
from spikeguard.attacks import FGSM, Linf
from spikeguard.attacks.gradients.base import SwapSurrogate
from spikeguard.attacks.gradients.spiking_rules import BPTR
from spikeguard.attacks.losses import cross_entropy
from spikeguard.models import CNN
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import stream
from tests.toys.closed_forms import IMAGES, LABELS, Linear

ATTACK = FGSM(Linf(0.1))
X = torch.rand(6, 1, 8, 8, generator=stream(1, "x"))
Y = torch.arange(6) % 2


def relu_network():
    """A convolution, batch normalisation and ReLU, in evaluation mode."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False),
        nn.BatchNorm2d(4, eps=1e-12),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, 2),
    )
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=stream(0, str(p.shape))) * 0.3)
        model[1].weight.fill_(1.0)
        model(X)
        model(X)
    return model.double().eval()


def spiking(neuron=None):
    neuron = LIF(0.5, v_th=0.2) if neuron is None else neuron
    model = CNN(1, 2, T=3, width=4, hidden=6, image_size=8, neuron=neuron, generator=stream(0, "w"))
    for step in range(20):  # the statistics of batch normalisation
        model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics", step)))
    return model


@pytest.mark.parametrize("filter_norm", [True, False])
def test_the_slope_along_the_gradient_is_known_and_that_across_it_is_0(filter_norm):
    """d L / d alpha is <g, d1>: ||g|| ||w|| as a whole, the sum over filters when normalised."""
    model, h = relu_network(), 1e-4
    kind = WeightLandscape(ATTACK, filter_norm=filter_norm, points=3, span=h)
    found = kind(model, (X, Y))
    names = ["0.weight", "4.weight"]
    weights = [model.get_parameter(name) for name in names]
    grads = torch.autograd.grad(cross_entropy(model(X.double()), Y).mean(), weights)
    weights = [w.detach() for w in weights]
    if filter_norm:
        slope = sum(
            float((g.flatten(1).norm(dim=1) * w.flatten(1).norm(dim=1)).sum())
            for g, w in zip(grads, weights, strict=True)
        )
    else:
        slope = length(dict(enumerate(grads))) * length(dict(enumerate(weights)))
    loss = found["loss"][0]
    assert (loss[2, 1] - loss[0, 1]) / (2 * h) == pytest.approx(slope, rel=2e-2)
    assert abs(loss[1, 2] - loss[1, 0]) / (2 * h) < 2e-2 * slope
    assert found["gradient"][0] == pytest.approx(length(dict(zip(names, grads, strict=True))))


@pytest.mark.parametrize("neuron", [None, NoisyLIF(0.5, 0.3, v_th=0.2)], ids=["LIF", "noisy"])
def test_the_centre_is_the_plain_loss(neuron):
    model = spiking(neuron)
    found = WeightLandscape(ATTACK, points=3)(model, (X, Y))
    middle = found.number("loss", place="clean", along=0.0, across=0.0)
    assert middle == pytest.approx(found["centre"][0].mean())
    if neuron is None:
        with torch.no_grad():
            plain = cross_entropy(model.eval()(X), Y)
        np.testing.assert_allclose(found["centre"][0], plain, rtol=1e-6)


def scaled(model, factor):
    """Scale one filter and the statistics behind it: the function stays the same."""
    with torch.no_grad():
        model[0].weight[1] *= factor
        model[1].running_mean[1] *= factor
        model[1].running_var[1] *= factor**2
    return model


def test_a_filter_before_batch_normalisation_may_be_scaled_with_filter_normalisation_alone():
    kind = WeightLandscape(ATTACK, points=5, span=0.5)
    one, other = kind(relu_network(), (X, Y)), kind(scaled(relu_network(), 10.0), (X, Y))
    np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)
    plain = replace(kind, filter_norm=False)
    one, other = plain(relu_network(), (X, Y)), plain(scaled(relu_network(), 10.0), (X, Y))
    np.testing.assert_allclose(one["centre"], other["centre"], rtol=1e-4)
    assert not np.allclose(one["loss"], other["loss"], rtol=0.05)


class Fails(nn.Module):
    """Raises at a call after some that work."""

    def __init__(self, inner, calls):
        super().__init__()
        self.inner, self.left = inner, calls

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("broken")
        return self.inner(x)


@pytest.mark.parametrize("calls", [1, 4, 9])
def test_the_weights_are_the_same_tensors_after_an_exception(calls):
    model = Fails(spiking(), calls)
    before = {name: (p.data_ptr(), p.detach().clone()) for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="broken"):
        WeightLandscape(ATTACK, points=3)(model, (X, Y))
    for name, p in model.named_parameters():
        assert p.data_ptr() == before[name][0] and torch.equal(p, before[name][1])
        assert p.requires_grad and p.grad is None
    assert model.training


def test_the_weights_move_inside_the_block_alone():
    model = relu_network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    moved = {name: torch.ones_like(before[name]) for name in ("0.weight", "4.weight")}
    with moved_weights(model, (0.5, moved), (-0.25, moved)):
        for name, p in model.named_parameters():
            shift = 0.25 if name in moved else 0.0
            torch.testing.assert_close(p.detach(), before[name] + shift)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_batches_add_up_and_the_same_seed_gives_the_same_directions():
    model = spiking()
    whole, parts = (
        weight_gradient(model, list(batches(model, (X, Y), limit=None, batch_size=size)))
        for size in (6, 4)
    )
    assert length(whole) > 0
    for name in whole:
        torch.testing.assert_close(whole[name], parts[name], rtol=1e-4, atol=1e-7)
    one, again, other = (
        weight_directions(model, whole, seed, filter_norm=True)[1] for seed in (0, 0, 1)
    )
    name = next(iter(one))
    assert torch.equal(one[name], again[name]) and not torch.equal(one[name], other[name])


def test_the_surrogate_decides_the_gradient():
    """No potential is within 1e-6 of the threshold: only the readout has a gradient."""
    model = spiking()
    images = list(batches(model, (X, Y), limit=None, batch_size=6))
    own = weight_gradient(model, images)
    none = weight_gradient(model, images, gradient=SwapSurrogate(Triangular(1e-6)))
    *hidden, readout = own
    assert all(own[name].any() for name in own)
    assert not any(none[name].any() for name in hidden)
    torch.testing.assert_close(none[readout], own[readout])


def test_rules_for_inputs_and_networks_without_weights_are_rejected():
    with pytest.raises(ValueError, match="BPTR differentiates inputs, not weights"):
        WeightLandscape(ATTACK, gradient=BPTR())
    with pytest.raises(NotApplicable, match="no weights of two or more dimensions"):
        WeightLandscape(ATTACK)(Linear(), (IMAGES, LABELS))
    with pytest.raises(NotApplicable, match="no spiking layer whose surrogate"):
        WeightLandscape(ATTACK, gradient=SwapSurrogate(2.0))(relu_network(), (X, Y))

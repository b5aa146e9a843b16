"""Directions of a landscape: orthogonal, of known norms, and the same for the same seed."""

import pytest
import torch
from torch import nn

from spikeguard.analysis.directions import (
    ascent,
    filter_normalised,
    length,
    orthogonal,
    orthogonal_weights,
    scaled_to,
    weights_of,
)
from spikeguard.attacks import L1, L2, Linf
from spikeguard.models import CNN
from spikeguard.neurons import DLIF, StoG
from spikeguard.rng import SampleStreams, stream

THREATS = [Linf(0.1), L2(0.5), L1(3.0)]
every_threat = pytest.mark.parametrize("threat", THREATS, ids=lambda t: t.norm)


def gradients(zeros=0):
    grad = torch.randn(4, 3, 5, 5, generator=stream(0, "g"))
    grad.flatten(1)[:, :zeros] = 0
    return grad


def drawn(threat, grad, seed=0, ids=range(4)):
    return orthogonal(threat, ascent(threat, grad), SampleStreams(seed, list(ids)))


@every_threat
@pytest.mark.parametrize("zeros", [0, 1, 40], ids=["odd", "even", "many zeros"])
def test_both_directions_have_norm_1_and_are_orthogonal(threat, zeros):
    first = ascent(threat, gradients(zeros))
    second = drawn(threat, gradients(zeros))
    still = torch.zeros_like(first)
    torch.testing.assert_close(threat.distance(first, still), torch.ones(4))
    torch.testing.assert_close(threat.distance(second, still), torch.ones(4))
    dots = (first * second).flatten(1).sum(1)
    lengths = first.flatten(1).norm(dim=1) * second.flatten(1).norm(dim=1)
    assert (dots.abs() <= 1e-6 * lengths).all()
    if threat.norm == "linf":
        assert dots.tolist() == [0] * 4
        assert set(second.unique().tolist()) <= {-1, 0, 1}
        assert (second == 0).flatten(1).sum(1).tolist() == [(75 - zeros) % 2] * 4


def test_the_first_direction_under_linf_is_the_sign_and_else_the_gradient():
    grad = gradients(3)
    assert torch.equal(ascent(THREATS[0], grad), grad.sign())
    for threat in THREATS[1:]:
        cosine = torch.cosine_similarity(ascent(threat, grad).flatten(1), grad.flatten(1))
        torch.testing.assert_close(cosine, torch.ones(4))


@every_threat
def test_a_gradient_of_zero_gives_no_direction_and_any_random_one(threat):
    first = ascent(threat, torch.zeros(2, 1, 4, 4))
    assert not first.any()
    second = orthogonal(threat, first, SampleStreams(0, [0, 1]))
    torch.testing.assert_close(threat.distance(second, first), torch.ones(2))


@every_threat
def test_the_seed_and_the_image_decide_the_random_direction(threat):
    whole = drawn(threat, gradients())
    assert torch.equal(whole, drawn(threat, gradients()))
    assert torch.equal(whole[2:3], drawn(threat, gradients()[2:3], ids=[2]))
    assert not torch.equal(whole, drawn(threat, gradients(), seed=1))
    assert not torch.equal(whole[0], whole[1])


def weights(seed=0):
    shapes = {"conv": (4, 3, 3, 3), "linear": (5, 7)}
    return {
        name: torch.randn(shape, generator=stream(seed, name), dtype=torch.float64)
        for name, shape in shapes.items()
    }


def dot(a, b):
    return float(sum((a[name] * b[name]).sum() for name in a))


def test_filter_normalisation_gives_every_filter_the_norm_of_the_weights():
    own, direction = weights(), weights(1)
    direction["conv"][2] = 0
    found = filter_normalised(direction, own)
    for name, d in found.items():
        expected = own[name].flatten(1).norm(dim=1)
        if name == "conv":
            expected[2] = 0
        torch.testing.assert_close(d.flatten(1).norm(dim=1), expected)
    assert length(scaled_to(direction, own)) == pytest.approx(length(own))
    assert length(scaled_to({name: 0 * d for name, d in own.items()}, own)) == 0


@pytest.mark.parametrize("by_filter", [True, False], ids=["by filter", "whole"])
def test_random_weights_are_orthogonal_also_after_scaling(by_filter):
    own, grad = weights(), weights(1)
    noise = orthogonal_weights(grad, 3, by_filter=by_filter)
    scale = filter_normalised if by_filter else scaled_to
    first, second = scale(grad, own), scale(noise, own)
    assert abs(dot(first, second)) < 1e-12 * length(first) * length(second)
    again = orthogonal_weights(grad, 3, by_filter=by_filter)
    assert all(torch.equal(noise[name], again[name]) for name in noise)
    other = orthogonal_weights(grad, 4, by_filter=by_filter)
    assert not torch.equal(noise["conv"], other["conv"])


def test_orthogonality_as_a_whole_is_lost_by_filter_normalisation():
    """Why filter-normalised directions are made orthogonal filter by filter."""
    own, grad = weights(), weights(1)
    noise = orthogonal_weights(grad, 3, by_filter=False)
    first, second = filter_normalised(grad, own), filter_normalised(noise, own)
    assert abs(dot(first, second)) > 1e-3 * length(first) * length(second)


@pytest.mark.parametrize("neuron", [DLIF(T=2), StoG(0.5)], ids=["DLIF", "StoG"])
def test_only_weights_of_convolutions_and_linear_layers_move(neuron):
    model = CNN(1, 2, T=2, width=2, hidden=4, image_size=8, neuron=neuron, generator=stream(0, "w"))
    model(torch.rand(2, 1, 8, 8))  # some neurons create their parameters here
    kinds = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    found = weights_of(model)
    assert {id(p) for p in found.values()} == kinds and len(found) >= 3

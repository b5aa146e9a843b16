"""Exact zeros in the gradient of every operation: counted where the answer is known."""

import pytest
import torch
from torch import nn

from spikeguard.analysis import operation_gradients
from spikeguard.models import CNN
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import stream

X = torch.rand(6, 1, 4, 4, generator=stream(0, "x"))
Y = torch.arange(6) % 2


def pooled(pool):
    """Two logits that are linear in the pooled image."""
    model = nn.Sequential(pool, nn.Flatten(), nn.Linear(4, 2))
    nn.init.constant_(model[2].bias, 0)
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]))
    return model


@pytest.mark.parametrize(("pool", "share"), [(nn.MaxPool2d(2), 0.75), (nn.AvgPool2d(2), 0.0)])
def test_max_pooling_passes_one_of_four_and_average_pooling_all(pool, share):
    found = operation_gradients(pooled(pool), (X, Y), batch_size=4)
    assert list(found) == ["input", "0", "1", "2"]
    assert [seen.kind for seen in found.values()][1:] == [type(pool).__name__, "Flatten", "Linear"]
    assert found["0"].zero_share == found["input"].zero_share == share
    assert found["1"].zero_share == found["2"].zero_share == 0
    assert (found["input"].entries, found["2"].entries) == (6 * 16, 6 * 4)


def test_the_norm_is_the_mean_of_the_norms_of_all_images():
    model = pooled(nn.AvgPool2d(2))
    found = operation_gradients(model, (X, Y), batch_size=4)
    x = X.clone().requires_grad_()
    nn.functional.cross_entropy(model(x), Y, reduction="sum").backward()
    expected = x.grad.flatten(1).norm(dim=1).mean().item()
    assert found["input"].norm == pytest.approx(expected)
    assert found["0"].norm == pytest.approx(expected)


def test_a_spiking_layer_passes_nothing_outside_its_surrogate():
    """No potential is within 1e-6 of the threshold, so every gradient before the layer is zero."""
    neuron = LIF(0.5, surrogate=Triangular(1e-6))
    model = CNN(1, 2, T=3, width=2, hidden=4, image_size=8, neuron=neuron, generator=stream(0, "w"))
    x = torch.rand(5, 1, 8, 8, generator=stream(1, "x"))
    found = operation_gradients(model, (x, Y[:5]), batch_size=2)
    last = list(found)[-1]
    assert found[last].zero_share < 1 and found["input"].zero_share == 1
    assert found["input"].norm == 0
    assert {seen.images for seen in found.values()} == {5}


@pytest.mark.parametrize("batch_size", [2, 5])
def test_the_model_is_unchanged_and_noise_does_not_depend_on_the_batch(batch_size):
    neuron = NoisyLIF(0.5, 0.3)
    model = CNN(1, 2, T=2, width=2, hidden=4, image_size=8, neuron=neuron, generator=stream(0, "w"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.rand(5, 1, 8, 8, generator=stream(1, "x"))
    found = operation_gradients(model, (x, Y[:5]), batch_size=batch_size)
    whole = operation_gradients(model, (x, Y[:5]), batch_size=3)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(module._forward_pre_hooks for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    for name, seen in found.items():
        assert (seen.zeros, seen.entries) == (whole[name].zeros, whole[name].entries)
        assert seen.norm == pytest.approx(whole[name].norm, rel=1e-5)

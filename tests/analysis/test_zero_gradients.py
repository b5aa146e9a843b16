"""Exact zeros in the gradient of every operation: counted where the answer is known."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import operation_gradients, weight_gradients
from spikeguard.models import CNN
from spikeguard.neurons import IF, LIF, ATan, NoisyLIF, Triangular
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import LIFNode
from tests.toys.known_gradients import linear_network

X = torch.rand(6, 1, 4, 4, generator=stream(0, "x"))
Y = torch.arange(6) % 2


def pooled(pool):
    """Two logits that are linear in the pooled image."""
    return linear_network(torch.tensor([[1.0, 2, 3, 4], [0, 0, 0, 0]]), pool=pool)


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


def test_a_3x3_2_max_pool_leaves_at_least_three_of_four_entries_at_zero():
    """64 windows on 16x16 pass their gradient to one entry each: at most 64 of 256 are not zero."""
    x = torch.rand(20, 3, 16, 16, generator=stream(2, "x")).requires_grad_()
    y = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
    y.backward(torch.randn(y.shape, generator=stream(3, "g")))
    zeros = (x.grad == 0).flatten(2).double().mean(2)
    assert y.shape[2:] == (8, 8)
    assert zeros.min() >= 0.75  # 37.88 % is not possible
    x = x.detach().requires_grad_()
    average = nn.functional.avg_pool2d(x, 3, stride=2, padding=1)
    average.backward(torch.randn(y.shape, generator=stream(3, "g")))
    assert (x.grad == 0).sum() == 0


def test_an_arctangent_is_never_zero():
    v = torch.cat([torch.linspace(-1e4, 1e4, 100_001), torch.tensor([-1e17, 1e17])])
    assert (ATan()(v) > 0).all()
    for neuron in (IF(surrogate=ATan()), LIF(0.5, surrogate=ATan())):
        current = (4 * torch.randn(4, 5, 50, generator=stream(4, "I"))).requires_grad_()
        neuron(current)[-1].sum().backward()
        assert (current.grad[-1] > 0).all()


def test_near_zero_is_relative_to_the_largest_entry_of_the_image():
    """The input gradient is proportional to the difference of the two rows."""
    row = torch.tensor([1.0, -1e-2, 1e-4, 0.0] * 4)
    model = linear_network(torch.stack([row, torch.zeros(16)]))
    for near, share in ((0.0, 0.25), (1e-3, 0.5), (0.02, 0.75)):
        for scale in (1.0, 1e-6):
            with torch.no_grad():
                model[1].weight[0] = row * scale
            found = operation_gradients(model, (X, Y), near=near)["input"]
            assert (found.zero_share, found.near_share) == (0.25, share)


def test_weight_gradients_of_a_linear_network_have_a_closed_form():
    """dL/dW is (p - onehot) x^T, so its zeros are the zeros of the image."""
    model = linear_network(torch.zeros(2, 16))
    x = X.clone()
    x[:, 0, 0] = 0  # 4 of 16 pixels
    found = weight_gradients(model, (x, Y), limit=5)
    assert list(found) == ["1.weight"]
    seen = found["1.weight"]
    assert (seen.kind, seen.role, seen.images, seen.entries) == ("Linear", "weight", 5, 5 * 32)
    assert seen.zero_share == 0.25
    norms = x[:5].flatten(1).norm(dim=1) / 2**0.5  # |p - onehot| = 1 / sqrt 2 at equal logits
    torch.testing.assert_close(seen.by_image[0][0, 2], norms[0].double(), rtol=1e-5, atol=0)
    assert seen.norm == pytest.approx(norms.mean().item(), rel=1e-5)


def test_weight_gradients_see_the_zeros_of_a_dead_layer_and_leave_the_model_unchanged():
    """Behind a surrogate of width 1e-6 nothing reaches the first weights; the last have some."""
    neuron = LIF(0.5, v_th=0.1, surrogate=Triangular(1e-6))
    model = CNN(1, 2, T=3, width=2, hidden=4, image_size=8, neuron=neuron, generator=stream(0, "w"))
    next(model.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    x = torch.rand(5, 1, 8, 8, generator=stream(1, "x"))
    first, *_, last = weight_gradients(model, (x, Y[:5])).values()
    assert first.zero_share == 1 and last.zero_share < 1
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters()) and model.training


def test_an_operation_called_once_a_step_counts_an_image_once():
    """Two calls of one operation: squares of the norm add up over the calls."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = linear_network(torch.ones(2, 16) * torch.tensor([[1.0], [0.0]]))

        def forward(self, x):
            return self.last(x) + self.last(x)

    found = operation_gradients(Twice(), (X, Y), batch_size=4)
    seen = found["last.1"]
    assert (seen.images, seen.entries) == (6, 2 * 6 * 16)
    # the input's gradient is the sum of two equal ones, each call's norm is half of it
    assert seen.norm == pytest.approx(found["input"].norm / 2**0.5)


@pytest.mark.parametrize(("neuron", "pool"), [(LIF(0.5), "MaxPool2d"), (IF(), "AvgPool2d")])
def test_operations_have_roles(neuron, pool):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), getattr(nn, pool)(2), nn.Flatten(), nn.Linear(2, 2))
    found = operation_gradients(model, (X, Y))
    roles = [seen.role for seen in found.values()]
    assert roles == ["image", "linear", "pooling", "other", "linear"]
    net = CNN(1, 2, T=2, width=2, hidden=4, image_size=8, neuron=neuron, generator=stream(0, "w"))
    found = operation_gradients(net, (torch.rand(5, 1, 8, 8, generator=stream(1, "x")), Y[:5]))
    assert {s.role for s in found.values() if s.kind == type(neuron).__name__} == {"spiking"}


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_foreign_network_has_its_layers_step_by_step_and_all_steps_at_once(mode):
    """Both step modes are one network; T = 4 also with batches of 4 images, [4, 4, 16]."""

    def net(mode):
        found = drawn(
            nn.Sequential(nn.Flatten(-3), nn.Linear(16, 12), LIFNode(mode), nn.Linear(12, 3)),
            0.3,
            stream(0, "w"),
        )
        return sg.foreign(found, T=4)

    found = operation_gradients(net(mode), (X, Y), batch_size=4)
    whole = operation_gradients(net("m"), (X, Y), batch_size=6)
    assert [seen.role for seen in found.values()] == [
        "image", "other", "linear", "spiking", "linear",
    ]  # fmt: skip
    assert {seen.images for seen in found.values()} == {6}
    for name in ("input", "model.0", "model.1", "model.2"):
        assert found[name].zeros == whole[name].zeros
        assert found[name].norm == pytest.approx(whole[name].norm, rel=1e-5) != 0
    # step by step the spikes are also those of the neuron's own reset, which adds to their gradient
    assert found["model.3"].entries == whole["model.3"].entries == 6 * 4 * 12


def test_an_operation_without_an_axis_of_images_is_left_out():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.odd, self.last = nn.Identity(), nn.Linear(16, 2)

        def forward(self, x):
            flat = x.flatten(1)
            once = self.odd(flat.T[:7])  # [7, images]
            return self.last(flat) + once.mean()

    found = operation_gradients(Mixed(), (X, Y))
    assert list(found) == ["input", "last"]

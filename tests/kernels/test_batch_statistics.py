"""Statistics of a batch that processes share; here both halves of a batch are in one process."""

import threading

import pytest
import torch
from torch import nn

from spikeguard.kernels.batch_statistics import moments, shared_statistics
from spikeguard.kernels.fused import can_fuse
from spikeguard.rng import stream


def drawn(*shape, name="x"):
    return torch.randn(shape, generator=stream(0, name), dtype=torch.float64)


def norm():
    layer = nn.BatchNorm2d(3).double()
    with torch.no_grad():
        layer.weight.copy_(drawn(3, name="w"))
        layer.bias.copy_(drawn(3, name="b"))
    return layer


def doubled(tensor):
    """The sum over two processes that hold the same samples."""
    return 2 * tensor


def test_two_equal_halves_are_normalised_as_the_whole():
    """The batch [x, x] has the mean and variance of x; a loss counts x in both halves."""
    half, whole = norm(), norm()
    x, twice = drawn(4, 3, 2, 2).requires_grad_(), drawn(4, 3, 2, 2).repeat(2, 1, 1, 1)
    twice.requires_grad_()
    with shared_statistics(half, doubled):
        y = half(x)
    expected = whole(twice)
    torch.testing.assert_close(y, expected[:4])
    y.pow(3).sum().backward()
    expected.pow(3).sum().backward()
    torch.testing.assert_close(x.grad, twice.grad[:4])
    torch.testing.assert_close(2 * half.weight.grad, whole.weight.grad)
    torch.testing.assert_close(dict(half.named_buffers()), dict(whole.named_buffers()))


def test_second_derivatives_are_those_of_finite_differences():
    layer = norm()
    with shared_statistics(layer, torch.clone):
        assert torch.autograd.gradgradcheck(layer, [drawn(3, 3, 1, 2).requires_grad_()])


def test_unequal_parts_are_weighted_by_their_samples():
    """Mean and variance of 0, 0, 0, 4 are 1 and 3, whoever holds the 4."""
    parts = {1.0: torch.tensor([[0.0], [0.0], [0.0]]), 2.0: torch.tensor([[4.0]])}
    sums = {
        n: torch.stack([x.new_tensor(len(x)), x.sum(), x.square().sum()]) for n, x in parts.items()
    }
    total = sum(sums.values()).double()
    for x in parts.values():
        with shared_statistics(nn.Identity(), lambda own: total):
            mean, var = moments(x, [0])
        assert (mean.item(), var.item()) == pytest.approx((1, 3))


def test_the_fast_kernel_is_kept_where_running_statistics_are_used():
    layer = nn.BatchNorm2d(3)
    with shared_statistics(layer, torch.clone):
        assert not can_fuse(layer)
        assert can_fuse(layer.eval())
    assert can_fuse(layer.train()) and "forward" not in vars(layer)


def test_a_backward_pass_in_another_thread_sums_too():
    layer, x = norm(), drawn(2, 3, 2, 2).requires_grad_()
    with shared_statistics(layer, doubled):
        y = layer(x).pow(3).sum()
    other = threading.Thread(target=y.backward)
    other.start()
    other.join()
    inside = drawn(2, 3, 2, 2).requires_grad_()
    with shared_statistics(layer, doubled):
        layer(inside).pow(3).sum().backward()
    torch.testing.assert_close(x.grad, inside.grad)


def test_one_value_per_channel_is_rejected():
    layer = norm()
    with (
        shared_statistics(layer, torch.clone),
        pytest.raises(ValueError, match="more than one value per channel"),
    ):
        layer(drawn(1, 3, 1, 1))

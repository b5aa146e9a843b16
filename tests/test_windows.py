"""Average pooling, compiled: torch's own bits forward and backward, and where it steps aside."""

import pytest
import torch
from torch import nn

from spikeguard.kernels import unfused, why_not, windows
from spikeguard.models import lean
from spikeguard.rng import stream

LAST = torch.channels_last

pytestmark = pytest.mark.skipif(why_not("cpu") is not None, reason=f"CPU kernel: {why_not('cpu')}")


def images(*shape, dtype=torch.float32):
    x = torch.randn(shape, generator=stream(0, "x"), dtype=dtype)
    return x.contiguous(memory_format=LAST)


def both(layer, x, upstream):
    """Return the layer's answer and derivative as torch has them, and as they are run here."""
    answers = []
    for run in (layer, lambda x: lean.run(layer, x)):
        given = x.clone(memory_format=torch.preserve_format).requires_grad_()
        y = run(given)
        (slope,) = torch.autograd.grad(y, given, upstream)
        answers.append((y.detach(), slope))
    return answers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [2, 1, (3, 2), (6, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3, 16])
def test_the_bits_are_those_of_torch(channels, size, dtype):
    layer, x = nn.AvgPool2d(size), images(5, channels, 6, 4, dtype=dtype)
    assert windows.takes(x, layer)
    upstream = torch.randn(layer(x).shape, generator=stream(0, "up"), dtype=dtype)
    (y, slope), (ours, our_slope) = both(layer, x, upstream)
    assert torch.equal(ours, y) and torch.equal(our_slope, slope)
    assert ours.is_contiguous(memory_format=LAST) and our_slope.is_contiguous(memory_format=LAST)


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(3, stride=2),
        nn.AvgPool2d(2, padding=1),
        nn.AvgPool2d(4),  # 6 is no multiple of 4
        nn.AvgPool2d(2, divisor_override=3),
    ],
    ids=str,
)
def test_other_windows_are_left_to_torch(layer):
    x = images(2, 3, 6, 8)
    assert not windows.takes(x, layer)
    upstream = torch.randn(layer(x).shape, generator=stream(0, "up"))
    (y, slope), (ours, our_slope) = both(layer, x, upstream)
    assert torch.equal(ours, y) and torch.equal(our_slope, slope)


def test_channels_first_half_precision_and_the_definition_are_left_to_torch():
    layer, x = nn.AvgPool2d(2), images(2, 3, 4, 4)
    assert not windows.takes(x.contiguous(), layer)
    assert not windows.takes(x.to(torch.bfloat16), layer)
    with unfused():
        given = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(
            lean.run(layer, given).pow(2).sum(), given, create_graph=True
        )
        first.sum().backward()  # a second derivative: only torch's own layer has one
    assert torch.equal(given.grad, torch.full_like(x, 0.5))  # of sum(y²): 4 · 2 / 4²

"""A batch of one sample has that sample's gradient, whatever strides its axes of length 1 have."""

import itertools
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from spikeguard.attacks import BPTR, Backprop, cross_entropy, frozen
from spikeguard.kernels import normalised
from spikeguard.kernels.layout import regular
from spikeguard.kernels.selection import unfused, use_kernel
from spikeguard.models import CNN, VGG5, WRN16_4, SEWResNet
from spikeguard.models.snn import fold
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream

SIZE, T = 8, 3
BUILD = {
    "CNN": lambda **o: CNN(2, 3, width=4, hidden=6, **o),
    "VGG5": lambda **o: VGG5(2, 3, width=0.1, **o),
    "SEWResNet": lambda **o: SEWResNet(2, 3, width=0.1, stem="cifar", **o),
    "WRN": lambda **o: WRN16_4(2, 3, width=0.1, **o),
}


@pytest.fixture(scope="module", params=BUILD)
def model(request):
    neuron = LIF(0.5, 0.2, surrogate=Triangular(2.0))
    made = BUILD[request.param](T=T, image_size=SIZE, neuron=neuron, generator=stream(0, "one"))
    made(torch.rand(16, 2, SIZE, SIZE, generator=stream(0, "statistics")))
    return made.eval()


def images():
    return torch.rand(4, 2, SIZE, SIZE, generator=stream(0, "images")), torch.arange(4) % 3


def choice(kernel):
    """Return a context in which a kernel is the default."""
    if kernel in ("reference", "multistep"):
        return use_kernel(kernel)
    return unfused() if kernel == "as defined" else nullcontext()


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [Backprop(), BPTR()], ids=repr)
@pytest.mark.parametrize("kernel", ["reference", "multistep", "as defined", "fastest"])
@pytest.mark.parametrize("watched", [False, True])
def test_a_batch_of_one_has_the_gradient_that_the_sample_has_among_others(
    model, kernel, watched, gradient
):
    """A hook on batch norm keeps the next neuron from fusing it."""
    x, y = images()
    hooks = [
        module.register_forward_hook(lambda *_: None)
        for module in model.modules()
        if watched and isinstance(module, nn.BatchNorm2d)
    ]
    try:
        with choice(kernel), frozen(model):
            together = gradient(model, x, y, cross_entropy)[1]
            parts = [(x[i : i + 1], y[i : i + 1]) for i in range(4)]
            alone = torch.cat([gradient(model, *part, cross_entropy)[1] for part in parts])
    finally:
        for hook in hooks:
            hook.remove()
    assert float(together.abs().max()) > 0
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-5 * float(together.abs().max()))


def strided(x):
    """Yield ``x`` in both layouts, with every number as the stride of an axis of length 1."""
    b, c, h, w = x.shape
    plain, innermost = x.reshape(-1).clone(), x.permute(0, 2, 3, 1).reshape(-1).clone()
    for memory, usual in ((plain, (c * h * w, h * w, w, 1)), (innermost, (h * w * c, 1, w * c, c))):
        choices = [
            [1, c, 7777] if n == 1 else [s] for n, s in zip((b, c, h, w), usual, strict=True)
        ]
        for strides in itertools.product(*choices):
            yield memory.as_strided(x.shape, strides)


@pytest.mark.parametrize("shape", [(1, 8, 5, 6), (2, 8, 5, 1), (1, 8, 1, 6), (1, 1, 5, 6)])
def test_no_stride_of_an_axis_of_length_one_reaches_batch_norm(shape):
    """Torch itself gives wrong results for most of them; see ``regular``."""
    norm = nn.BatchNorm2d(shape[1]).eval()
    norm.running_mean.uniform_(generator=stream(0, "mean"))
    norm.running_var.uniform_(0.1, 3, generator=stream(0, "var"))
    x, g = (torch.randn(shape, generator=stream(0, name)) for name in "xg")
    expected = g / (norm.running_var + norm.eps).sqrt().view(1, -1, 1, 1)
    for seen, grad in itertools.product(strided(x), strided(g)):
        for run in (lambda z: fold(norm, z[None])[0], lambda z: normalised(norm, z[None])[0]):
            z = seen.detach().requires_grad_()
            (found,) = torch.autograd.grad(run(z), z, grad)
            torch.testing.assert_close(found, expected)


def test_regular_strides_are_those_of_a_fresh_tensor_and_nothing_is_copied():
    fresh = torch.empty(1, 8, 5, 6, memory_format=torch.channels_last).stride()
    odd = torch.zeros(240).as_strided((1, 8, 5, 6), (8, 1, 48, 8))
    assert (regular(odd).stride(), regular(odd).data_ptr()) == (fresh, odd.data_ptr())
    several = torch.zeros(2, 8, 5, 6)
    assert regular(several) is several

"""Weights that see nothing but padding, counted against convolutions whose taps are known."""

import pytest
import torch
from torch import nn

from spikeguard.models import SEWResNet
from spikeguard.preflight.padding import padding_recorded
from spikeguard.preflight.quick import quick_check
from spikeguard.rng import stream


def recorded(model, *sizes):
    with padding_recorded(model) as found, torch.no_grad():
        for size in sizes:
            model(torch.rand(2, 3, size, size, generator=stream(0, "x")))
    return found


@pytest.mark.parametrize(
    ("options", "size", "alive"),
    [
        ({"kernel_size": 3, "padding": 1}, 1, 1),  # the centre
        ({"kernel_size": 3, "padding": 1}, 2, 9),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, 2, 4),  # one output, at the corner
        ({"kernel_size": 3, "padding": 2, "dilation": 2}, 2, 1),
        ({"kernel_size": 5, "padding": 2}, 2, 9),
        ({"kernel_size": 5, "padding": "same"}, 2, 9),
        ({"kernel_size": 1}, 1, 1),
        ({"kernel_size": (1, 3), "padding": (0, 1)}, 1, 1),
    ],
)
def test_taps_by_hand_and_by_the_gradient(options, size, alive):
    """A tap that sees only padding has a gradient of zero, every other one has not."""
    conv = nn.Conv2d(3, 4, bias=False, **options)
    found = recorded(conv, size)
    kernel = conv.weight[0, 0].numel()
    assert found.weights == 3 * 4 * (kernel - alive)
    conv(torch.rand(5, 3, size, size) + 0.1).square().sum().backward()
    assert found.weights == int((conv.weight.grad == 0).sum())


def test_a_tap_counts_if_it_sees_data_in_one_of_several_passes():
    conv = nn.Conv2d(3, 4, 3, padding=1)
    assert recorded(conv, 1).weights == 3 * 4 * 8
    assert recorded(conv, 1, 2).weights == 0


def test_other_padding_than_zeros_is_data():
    assert recorded(nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), 1).weights == 0


@pytest.mark.slow
def test_sew18_with_the_imagenet_stem_wastes_62_per_cent_at_32_by_32():
    """6,946,816 weights: those of 3x3 kernels on maps of 1x1, and of strided ones on 2x2."""
    model = SEWResNet(depth=18, T=1, num_classes=10).eval()
    found = recorded(model, 32)
    assert found.weights == 6_946_816
    assert f"{100 * found.weights / found.total:.1f}" == "62.1"
    assert "62.1 % of the weights (6,946,816 of " in str(found)
    assert recorded(SEWResNet(depth=18, T=1, num_classes=10, stem="cifar").eval(), 32).weights == 0


def test_the_quick_check_says_so_and_is_silent_otherwise():
    x, y = torch.rand(20, 3, 32, 32, generator=stream(0, "x")), torch.arange(20) % 3
    for stem, wasted in (("imagenet", True), ("cifar", False)):
        model = SEWResNet(depth=18, T=1, num_classes=3, stem=stem, width=0.05).eval()
        said = [text for text in quick_check(model, x, y) if "nothing but padding" in text]
        assert len(said) == wasted
        assert all(text.startswith("check: ") and "stem: cifar" in text for text in said)

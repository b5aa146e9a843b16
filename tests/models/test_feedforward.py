"""Layer lists and parameter counts against independent formulas; the joins of WRN-16-4."""

import copy

import pytest
import torch
from torch import nn

from spikeguard.models import CNN, MLP, SNN, VGG5, VGG11, WRN16_4
from spikeguard.models.feedforward import feedforward
from spikeguard.models.resnet import ConvexCombination, _Block
from spikeguard.models.snn import TimeSequential, fold
from spikeguard.neurons import IF, LIF, Neuron
from spikeguard.rng import stream


def conv(i, o, k=3, *, bias=True):
    return i * o * k * k + bias * o


def bn(c):
    return 2 * c


def linear(i, o):
    return i * o + o


def wrn_block(i, o, *, changes):
    """BN - conv - BN - conv, two coefficients, and a 1x1 convolution where the width changes."""
    branch = bn(i) + conv(i, o, bias=False) + bn(o) + conv(o, o, bias=False)
    return branch + 2 + (conv(i, o, 1, bias=False) if changes else 0)


def wrn(c, k, stem, a, b, d):
    blocks = wrn_block(stem, a, changes=True) + wrn_block(a, a, changes=False)
    blocks += wrn_block(a, b, changes=True) + wrn_block(b, b, changes=False)
    blocks += wrn_block(b, d, changes=True) + wrn_block(d, d, changes=False)
    return conv(c, stem, bias=False) + blocks + bn(d) + linear(d, k)


VGG5_FULL = (
    conv(3, 64) + bn(64) + conv(64, 128) + bn(128) + conv(128, 128) + bn(128)
    + linear(128 * 8 * 8, 4096) + linear(4096, 4096) + linear(4096, 10)
)  # fmt: skip
VGG5_SIXTEENTH = (
    conv(1, 4) + bn(4) + conv(4, 8) + bn(8) + conv(8, 8) + bn(8)
    + linear(8 * 2 * 2, 256) + linear(256, 256) + linear(256, 3)
)  # fmt: skip
VGG11_FULL = (
    conv(3, 64) + bn(64) + conv(64, 128) + bn(128) + conv(128, 256) + bn(256)
    + conv(256, 512) + bn(512) + 4 * (conv(512, 512) + bn(512))
    + linear(512 * 4 * 4, 4096) + linear(4096, 4096) + linear(4096, 100)
)  # fmt: skip
VGG11_SIXTEENTH = (
    conv(3, 4) + bn(4) + conv(4, 8) + bn(8) + conv(8, 16) + bn(16)
    + conv(16, 32) + bn(32) + 4 * (conv(32, 32) + bn(32))
    + linear(32 * 1 * 1, 256) + linear(256, 256) + linear(256, 10)
)  # fmt: skip


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: MLP(), linear(784, 256) + linear(256, 128) + linear(128, 10)),
        (lambda: MLP(64, 7, hidden=(5,)), linear(64, 5) + linear(5, 7)),
        (lambda: MLP(hidden=(), in_shape=(1, 8, 8)), linear(64, 10)),
        (
            lambda: CNN(),  # 28 -> 14 -> 7
            conv(1, 32) + bn(32) + conv(32, 64) + bn(64) + conv(64, 128) + bn(128)
            + linear(128 * 7 * 7, 128) + linear(128, 10),
        ),
        (
            lambda: CNN(3, 5, width=2, hidden=9, image_size=8),
            conv(3, 2) + bn(2) + conv(2, 4) + bn(4) + conv(4, 8) + bn(8)
            + linear(8 * 2 * 2, 9) + linear(9, 5),
        ),
        (lambda: VGG5(), VGG5_FULL),
        (lambda: VGG5(1, 3, width=1 / 16, image_size=8), VGG5_SIXTEENTH),
        (lambda: VGG11(num_classes=100), VGG11_FULL),
        (lambda: VGG11(width=1 / 16, image_size=8), VGG11_SIXTEENTH),
        (lambda: WRN16_4(), wrn(3, 10, 16, 64, 128, 256)),
        (lambda: WRN16_4(1, 100, width=1 / 8, image_size=8), wrn(1, 100, 2, 8, 16, 32)),
    ],
)  # fmt: skip
def test_parameter_count(build, expected):
    with torch.device("meta"):  # counted without being allocated
        model = build()
    assert sum(p.numel() for p in model.parameters()) == expected


def test_counts_as_published():
    """WRN-16-4 has 2 748 890 parameters, here six pairs of coefficients more; VGG11 11 M + 50 M."""
    assert wrn(3, 10, 16, 64, 128, 256) == 2_748_890 + 6 * 2
    last, dense = linear(4096, 100), linear(512 * 4 * 4, 4096) + linear(4096, 4096)
    assert round((VGG11_FULL - dense - last) / 1e6) == 11 and round(dense / 1e6) == 50


def kinds(model):
    """Return the layers in order, a letter each: Conv, BN, Spiking, Avg-pool, Flatten, Linear."""
    letter = {nn.Conv2d: "C", nn.BatchNorm2d: "B", LIF: "S", nn.AvgPool2d: "A"}
    letter |= {nn.Flatten: "F", nn.Linear: "L"}
    return "".join(letter[type(m)] for m in model.modules() if type(m) in letter)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (MLP(4, 2), "F LS LS L"),
        (MLP(4, 2, readout="rate"), "F LS LS LS"),
        (CNN(width=2), "CBS A CBS A CBS F LS L"),
        (VGG5(width=1 / 64), "CBS A CBS CBS A F LS LS L"),
        (VGG11(width=1 / 64), "CBS A CBS CBS A CBS CBS CBS A CBS CBS F LS LS L"),
        (WRN16_4(width=1 / 16), "C" + 3 * ("BS CBS C C" + "BS CBS C") + "BS AF L"),
    ],
)
def test_layers_come_in_the_published_order(model, expected):
    assert kinds(model) == expected.replace(" ", "")


@pytest.mark.parametrize(
    ("model", "bias", "pools"),
    [(VGG11(width=1 / 64), True, [2, 2, 2]), (WRN16_4(width=1 / 16), False, [8])],
)
def test_convolutions_and_poolings_have_the_published_settings(model, bias, pools):
    """Kernel 3 with padding 1 (1 with 0 in shortcuts); a bias in VGG only."""
    for m in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        assert (m.kernel_size, m.padding) in (((3, 3), (1, 1)), ((1, 1), (0, 0)))
        assert (m.bias is not None) == bias
    assert [m.kernel_size for m in model.modules() if isinstance(m, nn.AvgPool2d)] == pools


# ------------------------------------------------------------------------------ WRN-16-4


def test_wrn_has_convolutions_as_shortcuts_where_the_width_changes_and_there_strides():
    blocks = [m for m in WRN16_4(width=1 / 8).modules() if isinstance(m, _Block)]
    assert [b.shortcut is not None for b in blocks] == [True, False] * 3
    assert [b.residual[0].stride for b in blocks] == [(s, s) for s in (1, 1, 2, 1, 2, 1)]
    assert [b.shortcut.stride for b in blocks[::2]] == [(1, 1), (2, 2), (2, 2)]
    assert all(b.residual[3].stride == (1, 1) for b in blocks)
    assert all(b.join.coefficients.tolist() == [0.5, 0.5] for b in blocks)


@pytest.mark.parametrize(("channels", "out"), [(2, 2), (2, 5)])
def test_a_block_joins_its_branches_with_its_coefficients(channels, out):
    """Raw input as the shortcut where widths agree, the activated input through 1x1 elsewhere."""
    block = _Block(channels, out, 1, LIF(0.5, v_th=0.5)).eval()
    block.join.coefficients.data = torch.tensor([0.3, 2.0])
    x = torch.rand(3, 2, channels, 4, 4, generator=stream(0, "x")) * 2
    active = block.activate(x, 3)
    by_hand = x if channels == out else fold(block.shortcut, active)
    expected = 0.3 * by_hand + 2.0 * block.residual(active, 3)
    torch.testing.assert_close(block(x, 3), expected)
    assert 0 < active.mean() < 1 and ((active == 0) | (active == 1)).all()


def test_a_convex_combination_starts_as_the_mean():
    a, b = torch.rand(2, 3, 4, generator=stream(0, "ab"))
    torch.testing.assert_close(ConvexCombination()(a, b), (a + b) / 2)


def test_wrn_takes_sizes_that_halve_twice():
    for size in (4, 12):
        assert WRN16_4(1, 3, 2, width=1 / 16, image_size=size)(torch.zeros(2, 1, size, size)).shape
    for size in (0, 2, 30):
        with pytest.raises(ValueError, match=f"image_size must be a multiple of 4, got {size}"):
            WRN16_4(image_size=size)


# ------------------------------------------------------------------------ SNN and layers


def test_logits_are_the_mean_over_time_of_the_last_layer():
    """IF of 0.5 fires every second step: T = 4 steps of a unit readout weight average to 1/2."""
    model = MLP(1, 1, T=4, hidden=(1,), neuron=IF())
    for name, value in (("classifier.1", 1.0), ("classifier.3", 1.0)):
        layer = model.get_submodule(name)
        layer.weight.data.fill_(value)
    x = torch.tensor([[0.25], [0.5], [1.0], [0.0]])
    assert model(x).flatten().tolist() == [0.25, 0.5, 1.0, 0.0]
    model.get_submodule("classifier.3").bias.data.fill_(3.0)
    assert model(x).flatten().tolist() == [3.25, 3.5, 4.0, 3.0]


def test_the_rate_readout_averages_spikes_of_the_last_layer():
    model = MLP(1, 1, T=4, hidden=(), neuron=IF(), readout="rate")
    model.get_submodule("classifier.1").weight.data.fill_(1.0)
    assert model(torch.tensor([[0.25], [0.5], [5.0]])).flatten().tolist() == [0.25, 0.5, 1.0]


def test_stateless_layers_get_time_folded_into_the_batch():
    seen = []
    layer = nn.Linear(3, 2)
    layer.register_forward_hook(lambda _, inputs, out: seen.append((inputs[0].shape, out.shape)))
    x = torch.rand(4, 5, 3, generator=stream(0, "x"))
    y = TimeSequential(layer, IF())(x, 4)
    assert seen == [((20, 3), (20, 2))] and y.shape == (4, 5, 2)
    torch.testing.assert_close(fold(layer, x), torch.stack([layer(x_t) for x_t in x]))


def test_one_step_stands_for_T_equal_ones_until_the_first_neuron():
    layers = TimeSequential(nn.Linear(3, 2), IF(), nn.Linear(2, 2))
    x = torch.rand(1, 5, 3, generator=stream(0, "x"))
    assert torch.equal(layers(x, 4), layers(x.repeat(4, 1, 1), 4))
    assert layers[:1](x, 4).shape == (1, 5, 2)


def test_batch_statistics_of_the_shared_step_have_the_documented_divisor():
    """One step of n = 10 values keeps n / (n - 1) times the variance; four equal ones, 40 / 39."""
    x = torch.rand(1, 5, 1, 2, 1, generator=stream(0, "x"))
    one, four = (TimeSequential(nn.BatchNorm2d(1, momentum=1.0)) for _ in range(2))
    torch.testing.assert_close(
        one(x, 4).expand(4, -1, -1, -1, -1), four(x.repeat(4, 1, 1, 1, 1), 4)
    )
    variance = x.var(correction=0)
    torch.testing.assert_close(one[0].running_var, (variance * 10 / 9).view(1))
    torch.testing.assert_close(four[0].running_var, (variance * 40 / 39).view(1))
    torch.testing.assert_close(one[0].running_mean, four[0].running_mean)


def test_a_network_built_from_stages():
    body = TimeSequential(nn.Flatten(), nn.Linear(4, 3, bias=False), IF())
    model = SNN({"body": body}, T=3, num_classes=3, in_shape=(1, 2, 2), mean=(0.5,), std=(0.1,))
    assert [n for n, m in model.named_modules() if isinstance(m, Neuron)] == ["body.2"]
    assert set(model.state_dict()) == {"mean", "std", "body.1.weight"}
    x = torch.rand(2, 1, 2, 2, generator=stream(0, "x"), dtype=torch.float64)
    assert copy.deepcopy(model).double()(x).dtype == torch.float64


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: VGG5(width=0.0), "width is a multiplier > 0, got 0"),
        (lambda: WRN16_4(width=-1.0), "width is a multiplier > 0, got -1"),
        (lambda: VGG11(image_size=7, width=0.01), r"an image of \(7, 7\) is too small for"),
        (lambda: CNN(image_size=3), "is too small for"),
        (lambda: MLP(0), r"sizes must be >= 1, got inputs \(0,\)"),
        (lambda: MLP(4, 0), "0 classes"),
        (lambda: MLP(4, hidden=(3, 0)), r"\(3, 0\)"),
        (
            lambda: feedforward((2, 0), (), in_shape=(1, 4, 4), num_classes=2, T=1),
            r"widths \(2, 0\)",
        ),
    ],
)
def test_a_wrong_size_is_rejected_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)

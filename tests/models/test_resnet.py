"""SEW-ResNet and Spiking-ResNet against the published definition and a loop over time."""

import math
import warnings
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from spikeguard.config.errors import ConfigError
from spikeguard.config.instantiate import instantiate
from spikeguard.encoders.coding import Phase
from spikeguard.kernels.selection import unfused
from spikeguard.models import MODELS, SEWResNet, SpikingResNet
from spikeguard.models.sew import _SEWBlock, _SpikingBlock
from spikeguard.neurons import IF, ATan, are_spikes, record
from spikeguard.rng import randomness, stream

BUILD = {"sew": SEWResNet, "spiking": SpikingResNet}
DETACHED = {"sew": True, "spiking": False}
PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}  # of torchvision's, 1000 classes


def published(depth, classes, width=1.0, kernel=7, channels=3):
    """Return name and shape of every weight of torchvision's ResNet, in its order."""

    def norm(name, c):
        return [(f"{name}.weight", (c,)), (f"{name}.bias", (c,))]

    def conv(name, i, o, k, norm_name):
        return [(f"{name}.weight", (o, i, k, k)), *norm(norm_name, o)]

    planes = [round(p * width) for p in (64, 128, 256, 512)]
    expansion = 4 if depth == 50 else 1
    found = conv("conv1", channels, planes[0], kernel, "bn1")
    inside = planes[0]
    counts = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}[depth]
    for stage, (p, count) in enumerate(zip(planes, counts, strict=True), 1):
        for i in range(count):
            name, out = f"layer{stage}.{i}", p * expansion
            kernels = (1, 3, 1) if depth == 50 else (3, 3)
            sizes = [inside] + [p] * (len(kernels) - 1) + [out]
            for j, k in enumerate(kernels):
                part = conv(f"{name}.conv{j + 1}", sizes[j], sizes[j + 1], k, f"{name}.bn{j + 1}")
                found += part
            if i == 0 and (stage > 1 or inside != out):
                found += conv(f"{name}.downsample.0", inside, out, 1, f"{name}.downsample.1")
            inside = out
    return [*found, ("fc.weight", (classes, inside)), ("fc.bias", (classes,))]


def images(count=3, size=32, channels=3, dtype=torch.float64):
    x = torch.rand(count, channels, size, size, generator=stream(0, "images"))
    return x.to(dtype)


def ready(kind, dtype=torch.float64, **options):
    """Return a narrow network in eval mode, its batch statistics set by one training pass."""
    options = {"width": 1 / 16, "T": 4, **options}
    model = BUILD[kind](num_classes=5, **options).to(dtype)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for number, m in enumerate(norms):
        m.momentum = 1.0
        m.bias.data = 0.7 + 0.2 * torch.randn(
            len(m.bias), generator=stream(number, "bias"), dtype=torch.float32
        ).to(dtype)
    with randomness(model, stream(0, "statistics")), torch.no_grad():
        model(images(16, model.in_shape[1], dtype=dtype))
    return model.eval()


# ------------------------------------------------------------------- weights and their order


@pytest.mark.parametrize("depth", PARAMETERS)
@pytest.mark.parametrize("kind", BUILD)
def test_weights_are_those_of_the_published_network_in_its_order(kind, depth):
    with torch.device("meta"):  # counted without being allocated
        model = BUILD[kind](3, 1000, depth=depth, image_size=224)
    expected = [shape for _, shape in published(depth, 1000)]
    assert [tuple(p.shape) for p in model.parameters()] == expected
    assert sum(math.prod(shape) for shape in expected) == PARAMETERS[depth]
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[depth]


@pytest.mark.parametrize("kind", BUILD)
def test_the_cifar_stem_has_a_small_kernel_and_a_narrow_network_narrow_widths(kind):
    model = BUILD[kind](1, 7, depth=34, stem="cifar", width=1 / 32)
    expected = [shape for _, shape in published(34, 7, 1 / 32, kernel=3, channels=1)]
    assert [tuple(p.shape) for p in model.parameters()] == expected


@pytest.mark.parametrize("kind", BUILD)
def test_strides_and_paddings_are_the_published_ones(kind):
    """Stride 2 in the stem, and in stages 2 to 4 on the first 3x3 and on the shortcut."""
    for depth in (18, 50):
        model = BUILD[kind](depth=depth, width=1 / 32)
        convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
        assert all(c.padding == (c.kernel_size[0] // 2,) * 2 for c in convs)
        strided = [c.kernel_size[0] for c in convs if c.stride == (2, 2)]
        assert strided == [7, 3, 1, 3, 1, 3, 1]
        assert {c.stride for c in convs} == {(1, 1), (2, 2)}


# ------------------------------------------------------------------------- a loop over time


class HandIF:
    """IF with a hard reset, one step a call; ATan(2) by adding a smooth step and its negative."""

    def __init__(self, detach_reset):
        self.detach_reset, self.u = detach_reset, 0.0

    def __call__(self, current):
        v = self.u + current
        smooth = torch.atan(math.pi * (v - 1)) / math.pi
        spike = (v >= 1).to(v.dtype) + (
            smooth - smooth.detach()
        )  # exact, so that poolings have ties
        self.u = v * (1 - (spike.detach() if self.detach_reset else spike))
        return spike


def spikingjelly_if(detach_reset):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reason = "SpikingJelly is not installed"
        neuron = pytest.importorskip("spikingjelly.activation_based.neuron", reason=reason)
        surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate", reason=reason)
    return neuron.IFNode(surrogate_function=surrogate.ATan(alpha=2.0), detach_reset=detach_reset)


NEURONS = {"by hand": HandIF, "spikingjelly": spikingjelly_if}


def loop(model, x, kind, depth, neuron, *, stem="imagenet", pool="max"):
    """Run the published network with the given weights, step by step, and average its outputs."""
    names = [name for name, _ in published(depth, 5)]
    weight = dict(zip(names, model.parameters(), strict=True))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    statistics = dict(zip([n.removesuffix(".bias") for n in names[2:-1:3]], norms, strict=True))
    fire = defaultdict(lambda: neuron(DETACHED[kind]))

    def conv_norm(x, conv, norm, stride=1):
        w, seen = weight[f"{conv}.weight"], statistics[norm]
        y = F.conv2d(x, w, stride=stride, padding=w.shape[-1] // 2)
        return F.batch_norm(
            y,
            seen.running_mean,
            seen.running_var,
            weight[f"{norm}.weight"],
            weight[f"{norm}.bias"],
        )

    def block(x, name, stride):
        last = 3 if depth == 50 else 2
        y = x
        for j in range(1, last + 1):
            here = stride if j == last - 1 else 1
            y = conv_norm(y, f"{name}.conv{j}", f"{name}.bn{j}", here)
            if j < last:
                y = fire[name, j](y)
        shortcut = x
        if f"{name}.downsample.0.weight" in weight:
            shortcut = conv_norm(x, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            if kind == "sew":
                shortcut = fire[name, "shortcut"](shortcut)
        if kind == "sew":
            return fire[name, last](y) + shortcut
        return fire[name, last](y + shortcut)

    total = 0.0
    for _ in range(model.T):
        y = fire["stem"](conv_norm(x, "conv1", "bn1", 2 if stem == "imagenet" else 1))
        if stem == "imagenet":
            y = (F.max_pool2d if pool == "max" else F.avg_pool2d)(y, 3, 2, 1)
        for stage, count in enumerate((2, 2, 2, 2) if depth == 18 else (3, 4, 6, 3), 1):
            for i in range(count):
                y = block(y, f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1)
        total = total + F.linear(y.mean((2, 3)), weight["fc.weight"], weight["fc.bias"])
    return total / model.T


def slopes(logits, x):
    weights = torch.linspace(-1, 2, logits.shape[-1], dtype=logits.dtype)
    return torch.autograd.grad((logits * weights).sum(), x)[0]


@pytest.mark.slow
@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize(
    ("depth", "options"),
    [(18, {}), (18, {"pool": "avg"}), (18, {"stem": "cifar"}), (34, {}), (50, {})],
)
@pytest.mark.parametrize("kind", BUILD)
def test_logits_and_gradients_are_those_of_a_loop_over_time(kind, depth, options, neuron):
    size = 8 if "stem" in options else 32
    model = ready(kind, depth=depth, image_size=size, **options)
    x = images(size=size).requires_grad_()
    expected = loop(model, x, kind, depth, NEURONS[neuron], **options)
    logits = model(x)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    grad = slopes(logits, x)
    torch.testing.assert_close(grad, slopes(expected, x), rtol=1e-7, atol=1e-12)
    assert logits.std() > 1e-3 and grad.abs().max() > 0


@pytest.mark.parametrize("kind", BUILD)
def test_the_comparison_is_sensitive(kind):
    """Another pooling, the other block or the other reset gradient changes the result."""
    model, x = ready(kind), images().requires_grad_()
    logits = model(x)
    other = {"sew": "spiking", "spiking": "sew"}[kind]
    for wrong in (
        loop(model, x, kind, 18, HandIF, pool="avg"),
        loop(model, x, other, 18, HandIF),
    ):
        assert (wrong - logits).abs().max() > 1e-3
    reset = loop(model, x, kind, 18, lambda _: HandIF(not DETACHED[kind]))
    torch.testing.assert_close(reset, logits)
    assert (slopes(reset, x) - slopes(logits, x)).abs().max() > 1e-6


@pytest.mark.parametrize("kind", BUILD)
def test_fused_and_as_defined_it_is_the_same_network(kind):
    model, x = ready(kind, torch.float32), images(dtype=torch.float32).requires_grad_()
    logits = model(x)
    with unfused():
        expected = model(x)
        slope = slopes(expected, x)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slopes(logits, x), slope, rtol=1e-3, atol=1e-6)


# ------------------------------------------------------------------------------ the blocks


def one_channel(block, last):
    """Return a block of one channel that doubles, fires, and multiplies by ``last``."""

    def scale(by):
        conv, norm = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)
        conv.weight.data.fill_(by)
        return [conv, norm]

    return block([*scale(2.0), IF(), *scale(last)], [], IF()).eval()


@pytest.mark.parametrize(
    ("block", "last", "expected"),
    [
        (_SEWBlock, 2.0, [2, 2, 2, 2]),  # 1 + 1: both branches fire at every step
        (_SEWBlock, 0.5, [1, 2, 1, 2]),  # the branch fires every second step
        (_SEWBlock, -0.5, [1, 1, 1, 1]),  # the branch is silent
        (_SpikingBlock, 2.0, [1, 1, 1, 1]),
        (_SpikingBlock, -0.5, [0, 1, 0, 1]),  # 1 - 1/2 a step
        (_SpikingBlock, -1.0, [0, 0, 0, 0]),
    ],
)
def test_a_block_adds_spikes_or_currents(block, last, expected):
    ones = torch.ones(4, 1, 1, 1, 1)
    assert one_channel(block, last)(ones, 4).flatten().tolist() == expected
    assert one_channel(block, last)(ones[:1], 4).flatten().tolist() == expected


def test_sums_of_spikes_are_counts_and_not_taken_for_spikes():
    seen = {}
    for kind, block in (("sew", _SEWBlock), ("spiking", _SpikingBlock)):
        model = ready(kind, torch.float32)
        for m in (m for m in model.modules() if isinstance(m, block)):
            m.register_forward_hook(lambda _, __, y, kind=kind: seen.setdefault(kind, []).append(y))
        with torch.no_grad():
            model(images(dtype=torch.float32))
    assert len(seen["sew"]) == len(seen["spiking"]) == 8
    assert all(torch.equal(y, y.round()) and y.min() >= 0 for y in seen["sew"])
    assert max(y.max() for y in seen["sew"]) > 2 and not any(map(are_spikes, seen["sew"]))
    assert all(map(are_spikes, seen["spiking"]))
    assert {float(v) for y in seen["spiking"] for v in y.unique()} == {0.0, 1.0}


# ------------------------------------------------------------------------------ the stems


@pytest.mark.parametrize(
    ("stem", "sizes"), [("imagenet", [16, 8, 4, 2, 1]), ("cifar", [32, 32, 16, 8, 4])]
)
def test_the_stem_decides_how_much_of_a_small_image_is_left(stem, sizes):
    model = SEWResNet(width=1 / 64, T=1, stem=stem).eval()
    with record(model) as trace:
        model(images(1, dtype=torch.float32))
    side = [layer.v.shape[-1] for layer in trace.values()]
    assert list(dict.fromkeys(side)) == list(dict.fromkeys(sizes))
    assert (side[0], side[1], side[-1]) == (sizes[0], sizes[1], sizes[-1])


@pytest.mark.parametrize("kind", BUILD)
def test_the_pooling_is_all_that_pool_changes(kind):
    models = {pool: BUILD[kind](width=1 / 32, pool=pool) for pool in ("max", "avg", None)}
    lists = {pool: [str(m) for m in model.features] for pool, model in models.items()}
    assert lists[None] == lists["max"]
    unlike = [pair for pair in zip(lists["max"], lists["avg"], strict=True) if len(set(pair)) > 1]
    assert len(unlike) == 1
    assert "MaxPool2d(kernel_size=3, stride=2, padding=1" in unlike[0][0]
    assert "AvgPool2d(kernel_size=3, stride=2, padding=1" in unlike[0][1]
    states = [models[pool].state_dict() for pool in ("max", "avg")]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# ---------------------------------------------------------------------------- phase coding


def test_phase_coding_shows_the_bits_of_a_byte_and_starts_over():
    """178 = 10110010b: eight steps of bits, then the two top bits again (T = 10)."""
    code = Phase()(torch.tensor([[178 / 255]]), 10)
    assert code.flatten().tolist() == [1, 0, 1, 1, 0, 0, 1, 0, 1, 0]


def test_phase_coding_is_that_of_spikingjelly():
    """For every byte b: SpikingJelly's code of b / 256 equals ``Phase`` of b / 255."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoding = pytest.importorskip("spikingjelly.activation_based.encoding")
    byte = torch.arange(256.0)
    theirs = encoding.WeightedPhaseEncoder(8)
    expected = torch.stack([theirs(byte / 256) for _ in range(10)])
    assert torch.equal(Phase()(byte / 255, 10), expected)


@pytest.mark.parametrize("kind", BUILD)
def test_an_attack_finds_a_gradient_through_the_phase_code(kind):
    model, x = ready(kind, encoder=Phase(), T=10), images(2).requires_grad_()
    grad = slopes(model(x), x)
    assert (grad.flatten(1).abs().amax(1) > 0).all() and grad.isfinite().all()


# --------------------------------------------------------------------------------- options


@pytest.mark.parametrize("kind", BUILD)
def test_another_neuron_replaces_the_default_everywhere(kind):
    prototype = IF(0.8, surrogate=ATan(3.0), detach_reset=True)
    neurons = [m for m in BUILD[kind](width=1 / 64, neuron=prototype).modules() if type(m) is IF]
    assert len({id(n) for n in neurons}) == (1 + 16 + (3 if kind == "sew" else 0))
    assert all((n.v_th, n.surrogate, n.detach_reset) == (0.8, ATan(3.0), True) for n in neurons)


def test_a_recipe_names_depth_stem_and_pooling():
    spec = {"name": "sew_resnet", "depth": 34, "pool": "avg", "width": "1/64", "encoder": "phase"}
    model = instantiate(MODELS, spec, "model")
    assert sum(isinstance(m, _SEWBlock) for m in model.modules()) == 16
    assert isinstance(model.features[3], nn.AvgPool2d) and isinstance(model.encoder, Phase)
    for wrong in ({"depth": 20}, {"stem": "cifar10"}, {"pool": "mean"}):
        with pytest.raises(ConfigError, match=rf"model\.{next(iter(wrong))}"):
            instantiate(MODELS, {"name": "spiking_resnet", **wrong}, "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "ResNet: depth is 18, 34 or 50, got 20"),
        ({"stem": "tiny"}, "ResNet: stem is 'imagenet' or 'cifar', got 'tiny'"),
        ({"pool": "mean"}, "ResNet: pool is 'max' or 'avg', got 'mean'"),
        ({"stem": "cifar", "pool": "max"}, "the cifar stem has no pooling; leave out pool='max'"),
        ({"image_size": 0}, "sizes must be >= 1, got 3 channels, image_size 0, 10 classes"),
        ({"in_channels": 0}, "got 0 channels"),
        ({"num_classes": 0}, "0 classes"),
        ({"width": 0.0}, "width is a multiplier > 0, got 0"),
    ],
)
@pytest.mark.parametrize("kind", BUILD)
def test_a_wrong_option_is_rejected_in_one_line(kind, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        BUILD[kind](**options)
    assert "\n" not in str(caught.value)

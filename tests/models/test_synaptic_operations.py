"""Synaptic operations: counts by hand at borders, and against the layer itself on ones."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.encoders import Phase, Poisson
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.models import CNN, MLP, WRN16_4, SEWResNet, efficient_layers
from spikeguard.models.synaptic_operations import (
    count_operations,
    fan_out,
    joined_operations,
    uncounted_layers,
)
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import SampleStreams, randomness, stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import Leaky, LIFNode, LIFSpike, T

IMAGES = torch.rand(5, 1, 8, 8, generator=stream(0, "x"))


class Alone(nn.Module):
    """One layer as a classifier."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x).flatten(1)


def counted(layer, x):
    model = Alone(layer)
    with torch.no_grad(), count_operations(model) as counts:
        model(x)
    return counts["layer"]


def one_spike(*places, channels=1, size=(5, 5)):
    """Return one image for each place (channel, row, column), with a single spike there."""
    x = torch.zeros(len(places), channels, *size)
    for image, place in enumerate(places):
        x[(image, *place)] = 1
    return x


def test_a_spike_at_the_corner_of_a_padded_convolution_has_fewer_targets():
    corner, edge, centre = (0, 0, 0), (0, 0, 2), (0, 2, 2)
    found = counted(nn.Conv2d(1, 6, 3, padding=1), one_spike(corner, edge, centre))
    assert found.effective.tolist() == [6 * 4, 6 * 6, 6 * 9]
    assert (found.graded, found.steps) == (False, 1)
    assert found.dense == 6 * (9 * 9 + 12 * 6 + 4 * 4)  # 3x3 inside, 12 on edges, 4 corners


def test_without_padding_the_corner_has_one_target():
    corner, edge, centre = (0, 0, 0), (0, 0, 2), (0, 2, 2)
    found = counted(nn.Conv2d(1, 6, 3), one_spike(corner, edge, centre))
    assert found.effective.tolist() == [6, 6 * 3, 6 * 9]
    assert found.dense == 6 * 9 * 9  # 3 x 3 outputs of 9 inputs


def test_a_stride_skips_targets():
    # outputs at rows and columns 0, 2, 4 of the padded image: windows start at -1, 1, 3
    places = [(0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 2, 2), (0, 4, 4)]
    found = counted(nn.Conv2d(1, 2, 3, stride=2, padding=1), one_spike(*places))
    assert found.effective.tolist() == [2 * 1, 2 * 2, 2 * 4, 2 * 1, 2 * 1]
    assert found.dense == 2 * (1 + 2 + 1 + 2 + 1) ** 2


def test_a_stride_that_leaves_the_last_column_out_gives_it_no_target():
    found = counted(nn.Conv2d(1, 3, 2, stride=2), one_spike((0, 0, 0), (0, 3, 3), (0, 4, 0)))
    assert found.effective.tolist() == [3, 3, 0]


def test_groups_divide_the_targets():
    layer = nn.Conv2d(4, 8, 3, padding=1, groups=4)
    found = counted(layer, one_spike((0, 2, 2), (3, 0, 0), channels=4))
    assert found.effective.tolist() == [2 * 9, 2 * 4]


def test_dilation_moves_the_targets_out_of_a_small_image():
    layer = nn.Conv2d(1, 1, 3, padding=2, dilation=2)
    found = counted(layer, one_spike((0, 0, 0), (0, 2, 2), (0, 1, 0)))
    assert found.effective.tolist() == [4, 9, 4]  # offsets -2, 0, 2 in each direction


def test_a_circular_padding_has_no_border():
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")
    assert counted(layer, one_spike((0, 0, 0), (0, 2, 2))).effective.tolist() == [9, 9]


def test_weights_of_zero_are_no_effective_operations():
    layer = nn.Conv2d(1, 2, 3, padding=1)
    with torch.no_grad():
        layer.weight[0] = 0
        layer.weight[1, 0, 1, 1] = 0
    found = counted(layer, one_spike((0, 0, 0), (0, 2, 2)))
    assert found.effective.tolist() == [3, 8]
    assert found.dense == 2 * (9 * 9 + 12 * 6 + 4 * 4)
    linear = nn.Linear(3, 4)
    with torch.no_grad():
        linear.weight[:, 1] = 0
    assert counted(linear, torch.ones(1, 3)).effective.tolist() == [8]


def test_a_linear_layer_multiplies_spikes_by_outputs():
    x = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    found = counted(nn.Linear(4, 7), x)
    assert found.effective.tolist() == [14, 0, 28] and found.dense == 28 and not found.graded


def test_signed_spikes_are_accumulated_and_counts_are_multiplied():
    layer = nn.Linear(3, 2)
    signed = counted(layer, torch.tensor([[-1.0, 0.0, 1.0]]))
    assert (signed.effective.tolist(), signed.graded) == ([4], False)
    for value in (2.0, 0.25, -3.0):
        graded = counted(layer, torch.tensor([[value, 0.0, 1.0]]))
        assert (graded.effective.tolist(), graded.graded) == ([4], True)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_count_is_exact_in_every_type(dtype):
    layer = nn.Linear(4096, 5000).to(dtype)
    x = (torch.rand(2, 4096, generator=stream(0, "x")) < 0.9).to(dtype)
    spikes = x.double().sum(1).long()
    expected = (x.double() @ (layer.weight != 0).double().sum(0)).long().tolist()
    assert counted(layer, x).effective.tolist() == expected
    assert int(spikes.min()) * 5000 > 2**24  # beyond the whole numbers of float32


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(6, 9, (3, 2), stride=(2, 1), padding=(1, 2), groups=3), (6, 9, 7)),
        (nn.Conv2d(3, 4, 3, padding="same", dilation=2), (3, 6, 8)),
        (nn.Conv1d(2, 4, 3, stride=2), (2, 11)),
        (nn.Conv3d(1, 2, 3, padding=1), (1, 4, 5, 6)),
        (nn.Linear(12, 5), (12,)),
    ],
)
def test_counts_are_those_of_the_layer_with_weights_and_inputs_of_one(layer, shape):
    """Feed ones through a copy with weights of one: each output is its number of operations."""
    x = (torch.rand(3, *shape, generator=stream(0, "x")) < 0.3).float()
    found = counted(layer, x)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.zero_()
        assert found.effective.tolist() == layer(x).flatten(1).sum(1).long().tolist()
        assert found.dense == int(layer(torch.ones(1, *shape)).sum())
    assert int(fan_out(layer, shape).sum()) == found.dense


# --- networks


def network(build, **options):
    model = build(1, 3, T, image_size=8, **options)
    model(IMAGES)
    return model.eval()


def called(model, x=IMAGES):
    with torch.no_grad(), randomness(model, SampleStreams(0, range(len(x)))):
        return model(x)


def of(model, x=IMAGES):
    with count_operations(model) as counts:
        called(model, x)
    return dict(counts)


def test_direct_coding_computes_the_first_layer_once_and_graded():
    model = network(CNN, width=4, hidden=6, neuron=LIF(0.5, 0.3))
    found = of(model)
    assert {name: layer.steps for name, layer in found.items()} == {
        "features.0": 1,
        **dict.fromkeys(["features.4", "features.8", "classifier.1", "classifier.3"], T),
    }
    assert found["features.0"].graded
    assert found["features.0"].effective.tolist() == [found["features.0"].dense] * 5  # no pixel 0


def test_average_pooling_makes_the_input_of_the_next_convolution_graded():
    model = network(CNN, width=4, hidden=6, neuron=LIF(0.5, 0.3))
    graded = {name: layer.graded for name, layer in of(model).items()}
    assert graded == {
        "features.0": True,
        "features.4": True,  # behind average pooling
        "features.8": True,
        "classifier.1": False,
        "classifier.3": False,
    }


def test_the_sums_of_a_sew_block_are_graded_and_its_spikes_are_not():
    model = network(SEWResNet, width=1 / 16, stem="cifar", neuron=LIF(0.5, 0.2))
    found = of(model)
    assert not found["features.3.residual.0"].graded  # spikes of the stem
    assert found["features.4.residual.0"].graded  # sums of the first block
    assert not found["features.4.residual.3"].graded  # spikes inside the block


@pytest.mark.parametrize("encoder", [Poisson(), Poisson(signed=True), Phase(weighted=True)])
def test_the_code_of_the_image_decides_on_the_first_layer(encoder):
    found = of(network(CNN, width=4, hidden=6, neuron=LIF(0.5, 0.3), encoder=encoder))["features.0"]
    assert found.graded is isinstance(encoder, Phase) and found.steps == T


def test_a_network_that_never_fires_has_no_operations_behind_its_first_layer():
    model = network(CNN, width=4, hidden=6, neuron=LIF(0.5, 1e6))
    first, *others = of(model).values()
    assert int(first.effective.sum()) > 0
    assert all(int(layer.effective.sum()) == 0 and not layer.graded for layer in others)


@pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(k, marks=pytest.mark.skipif(why_not(k) is not None, reason=f"{k}"))
        for k in KERNELS
    ],
)
@pytest.mark.parametrize("build", [CNN, SEWResNet, WRN16_4], ids=lambda build: build.__name__)
def test_counts_are_those_of_the_inputs_of_every_layer(kernel, build):
    """The inputs are read by ordinary hooks, which turn the fast paths off."""
    wide = {} if build is CNN else {"width": 1 / 16}
    stem = {"stem": "cifar"} if build is SEWResNet else {}
    model, inputs = network(build, neuron=NoisyLIF(0.5, 0.3, 0.3), **wide, **stem).double(), {}
    images, handles = IMAGES.double(), []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            handles.append(
                module.register_forward_pre_hook(
                    lambda m, x, name=name: inputs.update({name: x[0]})
                )
            )
    with use_kernel(kernel):
        called(model, images)
        for handle in handles:
            handle.remove()
        found = of(model, images)
    assert found.keys() == inputs.keys() and len(found) >= 5
    for name, layer in found.items():
        module, spikes = model.get_submodule(name), (inputs[name] != 0).double()
        reached = fan_out(module, spikes.shape[1:]).double()
        rows = (spikes * reached).flatten(1).sum(1).view(-1, len(images)).sum(0)
        assert layer.effective.tolist() == rows.long().tolist(), name


@pytest.mark.skipif(why_not("cpu") is not None, reason=f"cpu: {why_not('cpu')}")
def test_a_counter_leaves_the_fast_convolutions_in_use(monkeypatch):
    model, fast, real = network(CNN, width=4, hidden=6), [], efficient_layers._Conv.apply
    monkeypatch.setattr(efficient_layers._Conv, "apply", lambda *a: fast.append(1) or real(*a))
    expected = called(model)
    with count_operations(model):
        assert torch.equal(called(model), expected)
    assert len(fast) == 6
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_joined_counts_are_those_of_all_images_at_once():
    model = network(CNN, width=4, hidden=6, neuron=LIF(0.5, 0.3))
    whole = of(model)
    joined = joined_operations([of(model, part) for part in IMAGES.split(2)])
    for name, layer in joined.items():
        assert torch.equal(layer.effective, whole[name].effective)
        assert (layer.graded, layer.dense) == (whole[name].graded, whole[name].dense)


@pytest.mark.parametrize("node", [LIFNode, Leaky, LIFSpike], ids=lambda node: node.__name__)
def test_foreign_layers_are_counted_in_every_step(node):
    class Folded(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x.repeat(T, 1, 1, 1)).view(T, -1, 3)

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), node(), nn.Linear(20, 3))
    net = drawn(net, 0.4, stream(0, "toy"))
    model = sg.foreign(Folded(net) if node is LIFSpike else net, T=T, example=IMAGES).eval()
    first, second = of(model).values()
    assert first.effective.tolist() == [64 * 20 * T] * 5 and first.graded
    with sg.neurons.record(model) as trace:
        called(model)
    (seen,) = trace.values()
    assert second.effective.tolist() == (3 * seen.spikes.sum((0, 2))).long().tolist()
    assert (first.steps, second.steps, second.graded) == (T, T, False)


def test_layers_that_are_not_counted_are_named():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 1, 3), nn.BatchNorm2d(1))
    assert uncounted_layers(model) == ["1"]
    assert uncounted_layers(MLP(64, 3, 3)) == []


def test_inputs_that_do_not_divide_among_the_images_are_rejected():
    class Patches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(x.reshape(-1, 4)[:-1])[: len(x)]

    model = Patches()
    with count_operations(model) as counts:
        model(torch.ones(4, 8))
    with pytest.raises(ValueError, match="7 inputs for 4 images"):
        counts["layer"]

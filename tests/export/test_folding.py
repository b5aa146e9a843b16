"""Networks read as graphs: normalisations, gains and means folded by hand, and what is rejected."""

import math

import pytest
import torch
from torch import nn

from spikeguard.encoders import ENCODERS
from spikeguard.export.exporter import export_nir
from spikeguard.export.folding import folded, without_noise
from spikeguard.export.graph import Pool, Spiking, Weights
from spikeguard.export.importer import load_nir
from spikeguard.export.refusals import ExportError
from spikeguard.models import CNN, MLP, VGG5, WRN16_4, SEWResNet, SpikingResNet, SpikingVGG11
from spikeguard.models.snn import SNN, Temporal
from spikeguard.neurons import DLIF, IF, LIF, NEURONS, PLIF, EvolutionaryLIF, NoisyLIF, StoG
from spikeguard.rng import stream
from tests.toys.exported import agreement, cnn, images, linear, lively, mlp, single

ALIKE = {"rtol": 0, "atol": 1e-12}


def only(graph, kind):
    (found,) = (node for node in graph.nodes.values() if isinstance(node, kind))
    return found


def test_a_batch_normalisation_and_the_input_gain_in_the_weights():
    """3 (2 x + 1 - 1/2) / 2 + 1 = 3 x + 7/4; a leak of 3/4 needs four times that."""
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    for tensor, value in (
        (conv.weight, 2.0),
        (conv.bias, 1.0),
        (norm.running_mean, 0.5),
        (norm.running_var, 4.0),
        (norm.weight, 3.0),
        (norm.bias, 1.0),
    ):
        tensor.data.fill_(value)
    graph = folded(single(conv, norm, LIF(0.75), in_shape=(1, 2, 2)))
    found = only(graph, Weights)
    torch.testing.assert_close(found.weight.flatten().tolist(), [12.0], **ALIKE)
    torch.testing.assert_close(found.bias.tolist(), [7.0], **ALIKE)
    neuron = only(graph, Spiking)
    assert (neuron.inputs, neuron.leak.tolist(), neuron.v_th) == ([found.name], [0.75], 1.0)


@pytest.mark.parametrize(
    ("neuron", "gain"),
    [
        (LIF(0.5), 2.0),
        (LIF.from_tau(4.0, decay_input=True), 1.0),
        (LIF(0.5, input_scale=0.25), 0.5),
        (IF(), 1.0),
        (PLIF(0.5), 2.0),
        (DLIF(4, decay=0.5), 2.0),
        (NoisyLIF(0.5, sigma=0.0), 2.0),
        (StoG(0.5, p=1.0, shape=()), 2.0),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_gain_of_every_neuron(neuron, gain):
    found = only(folded(single(linear([[1.0, 0.0], [0.0, 3.0]]), neuron)), Weights)
    torch.testing.assert_close(found.weight.diag().tolist(), [gain, 3 * gain], **ALIKE)


def test_a_gate_that_is_constant_is_a_gain_or_a_leak():
    for kind, leak, gain in (("input", 0.5, 3.0), ("leak", 0.75, 4.0)):
        neuron = DLIF(4, kind, decay=0.5)
        neuron.a.data.fill_(1.5)
        graph = folded(single(linear([[1.0]]), neuron, in_shape=(1,)))
        assert only(graph, Spiking).leak.tolist() == [leak]
        torch.testing.assert_close(only(graph, Weights).weight.item(), gain, **ALIKE)


def test_one_leak_for_each_channel():
    neuron = EvolutionaryLIF(3, (2, 1, 1))
    neuron.leak.data[:, 0], neuron.leak.data[:, 1] = 0.5, 0.75
    neuron.leak.data[0] = 7.0  # before the first step there is nothing that leaks
    conv = nn.Conv2d(1, 2, 1, bias=False)
    conv.weight.data.fill_(1.0)
    graph = folded(single(conv, neuron, T=3, in_shape=(1, 2, 2)))
    assert only(graph, Spiking).leak.tolist() == [0.5, 0.75]
    assert only(graph, Weights).weight.flatten().tolist() == [2.0, 4.0]


def test_the_potential_at_rest_shifts_the_threshold():
    graph = folded(single(linear([[1.0]]), LIF(0.5, v_th=1.0, v_reset=-0.5), in_shape=(1,)))
    assert only(graph, Spiking).v_th == 1.5


def test_a_mean_moves_into_linear_weights_and_into_a_node_before_padding():
    """2 (x - 1/2) / (1/4) = 8 x - 4. At a border padding adds zeros after normalisation."""
    options = {"in_shape": (1,), "mean": (0.5,), "std": (0.25,)}
    found = only(folded(single(linear([[2.0]]), **options)), Weights)
    assert (found.weight.item(), found.bias.item()) == (8.0, -4.0)
    padded = folded(cnn(mean=(0.5,), std=(0.25,)))
    first = padded.nodes["features_0_scale"]
    assert (first.weight.item(), first.bias.item(), first.inputs) == (4.0, -2.0, ["input"])
    assert "features_0_scale" not in folded(cnn(mean=(0.0,), std=(0.25,))).nodes


def test_a_raw_shortcut_keeps_the_weights_that_others_read():
    """In a wide block without a shortcut layer, the same sum feeds two branches."""
    graph = folded(lively(WRN16_4(1, 5, T=3, width=1 / 8, image_size=8), images()))
    readers = {}
    for node in graph.nodes.values():
        for source in node.inputs:
            readers.setdefault(source, []).append(node.name)
    shared = [name for name, found in readers.items() if len(found) > 1]
    assert any(isinstance(graph.nodes[name], Weights) for name in shared)


NETWORKS = {
    "mlp": lambda: mlp(),
    "flat": lambda: MLP(64, 5, 3, hidden=(16,), mean=(0.3,), std=(0.5,)),
    "cnn": lambda: cnn(),
    "normalised": lambda: cnn(mean=(0.4,), std=(0.2,)),
    "rate": lambda: cnn(readout="rate"),
    "vgg5": lambda: VGG5(1, 5, 3, width=1 / 16, image_size=8),
    "wrn": lambda: WRN16_4(1, 5, T=3, width=1 / 8, image_size=8),
    "sew": lambda: SEWResNet(1, 5, T=3, width=1 / 16, stem="cifar", image_size=8),
    "sew avg": lambda: SEWResNet(1, 5, T=3, width=1 / 16, pool="avg", image_size=16),
    "spiking": lambda: SpikingResNet(1, 5, T=3, width=1 / 16, stem="cifar", image_size=8),
    "spiking lif": lambda: SpikingResNet(
        1, 5, T=3, width=1 / 16, stem="cifar", image_size=8, neuron=LIF(0.5)
    ),
    "plif": lambda: cnn(PLIF(0.6)),
    "if": lambda: cnn(IF()),
    "dlif": lambda: cnn(DLIF(4, decay=0.9)),
    "evolutionary": lambda: cnn(EvolutionaryLIF(4, decay=0.7)),
    "decay input": lambda: cnn(LIF.from_tau(2.0, decay_input=True, v_th=0.3)),
    "v_reset": lambda: cnn(LIF(0.5, v_reset=-0.2)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_fires_as_the_network(name):
    model = NETWORKS[name]()
    size = 16 if name == "sew avg" else 8
    x = images(6, size=size)
    x = x.flatten(1) if name == "flat" else x
    model = lively(model, x)
    found = agreement(model, x)
    assert found.differ == 0
    assert found.logits < 1e-5
    assert found.same == found.n == 6
    assert found.spikes > 100


@pytest.mark.parametrize("high", [1.0, 2.0, math.inf])
def test_event_frames_are_the_input_of_the_graph(high, tmp_path):
    encoder = ENCODERS["event_frames"](high=high)
    frames = (torch.rand(6, 5, 2, 8, 8, generator=stream(0, "frames")) < 0.2).float()
    frames = frames * min(high, 3.0)
    model = CNN(2, 5, T=5, width=4, hidden=12, image_size=8, encoder=encoder)
    model = lively(model, frames)
    assert agreement(model, frames).differ == 0
    export_nir(model, tmp_path / "net.nir", frames)
    found = load_nir(tmp_path / "net.nir")
    assert found.input_space == model.input_space
    torch.testing.assert_close(found(frames), model(frames), rtol=0, atol=1e-5)


def test_pooling_keeps_its_windows():
    pools = [node for node in folded(cnn()).nodes.values() if isinstance(node, Pool)]
    assert [(pool.kernel, pool.stride, pool.padding) for pool in pools] == [
        ((2, 2), (2, 2), (0, 0))
    ] * 2


class Unknown(Temporal):
    def forward(self, x, T):
        return x


class OwnNetwork(SNN):
    pass


def with_gates():
    neuron = DLIF(4)
    neuron.a.data[1] = 1.5
    return single(linear([[1.0]]), neuron, in_shape=(1,))


def with_leaks(change):
    neuron = EvolutionaryLIF(4, (1, 2, 2), decay=0.5)
    change(neuron.leak.data)
    return single(nn.Conv2d(1, 1, 1), neuron, in_shape=(1, 2, 2))


REFUSED = {
    "soft reset": (lambda: mlp(LIF(0.5, reset="soft")), "classifier.2: LIF with soft reset"),
    "noise": (lambda: mlp(NoisyLIF(0.5)), r"NoisyLIF adds noise \(sigma 0.6325\)"),
    "gates of spikes": (lambda: mlp(StoG(p=0.7)), "StoG blocks spikes at random"),
    "gates of steps": (with_gates, r"DLIF has another input gate at every step \(1, 1.5, 1, 1\)"),
    "leaks of steps": (
        lambda: with_leaks(lambda leak: leak[2].fill_(0.6)),
        "another leak at every step",
    ),
    "leaks of positions": (
        lambda: with_leaks(lambda leak: leak[:, :, 0].fill_(0.6)),
        "another leak at every position",
    ),
    "leak above 1": (lambda: with_leaks(lambda leak: leak.fill_(1.5)), "in \\(0, 1\\]"),
    "max pool": (
        lambda: SEWResNet(1, 5, T=2, width=1 / 16, image_size=16),
        "features.3: NIR has no node for MaxPool2d; average pooling has one",
    ),
    "padding": (
        lambda: SpikingVGG11(1, 5, T=2, width=1 / 64, image_size=8, encoder=ENCODERS["direct"]()),
        "no node for ZeroPad2d",
    ),
    "layer": (lambda: single(Unknown()), "net.0: NIR has no node for Unknown"),
    "network": (
        lambda: OwnNetwork({"a": Unknown()}, T=1, num_classes=2, in_shape=(2,)),
        "class OwnNetwork",
    ),
    "windows": (
        lambda: single(nn.AdaptiveAvgPool2d(2), in_shape=(1, 3, 3)),
        "windows of several sizes",
    ),
    "poisson": (lambda: mlp(encoder=ENCODERS["poisson"]()), "Poisson: draws spikes at random"),
    "phase": (lambda: mlp(encoder=ENCODERS["phase"]()), "Phase: emits bits"),
    "frequency": (
        lambda: cnn(encoder=ENCODERS["frequency"]()),
        "FrequencyEncoding: filters the image",
    ),
    "quantised": (lambda: mlp(encoder=ENCODERS["quantised"]()), "Quantised: rounds pixels"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_nir_cannot_hold_is_rejected(name):
    build, message = REFUSED[name]
    with pytest.raises(ExportError, match=message) as error:
        folded(build())
    assert "\n" not in str(error.value)


def test_every_neuron_is_representable_or_rejected_by_name():
    """A neuron that is added to the package is read here, or the export says that it is not."""
    for name, kind in NEURONS.items():
        options = {"T": 4} if name in ("dlif", "evolutionary_lif") else {}
        graph = folded(without_noise(mlp(kind(**options))))
        assert len(graph.neurons()) == 2, name


def test_without_noise_leaves_the_network_and_its_training_noise():
    model = mlp(NoisyLIF(0.5))
    quiet = without_noise(model)
    assert model.stochastic and not quiet.stochastic
    assert quiet.train().stochastic


def test_a_network_is_not_changed():
    model, x = cnn(), images()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(model(x), model(x))
    assert stream(0, "norm") is not None

"""Spike counts against the recorded spikes, under every kernel, with the fast paths in use."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.models import CNN, MLP, SNN, WRN16_4, SEWResNet, efficient_layers
from spikeguard.models.snn import TimeSequential
from spikeguard.models.spike_counts import count_spikes, joined_spikes
from spikeguard.neurons import LIF, NoisyLIF, StoG, record
from spikeguard.rng import SampleStreams, randomness, stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import Leaky, LIFNode, LIFSpike, T

KERNEL = [
    pytest.param(k, marks=pytest.mark.skipif(why_not(k) is not None, reason=f"{k}: {why_not(k)}"))
    for k in KERNELS
]
NETWORKS = {
    "cnn": lambda: CNN(1, 3, 3, width=4, hidden=6, image_size=8, neuron=LIF(0.5, 0.3)),
    "noisy": lambda: CNN(1, 3, 3, width=4, hidden=6, image_size=8, neuron=NoisyLIF(0.5, 0.4, 0.3)),
    "mlp": lambda: MLP(
        64, 3, 3, in_shape=(1, 8, 8), hidden=(9,), readout="rate", neuron=LIF(0.5, 0.1)
    ),
    "sew": lambda: SEWResNet(1, 3, 3, width=1 / 16, stem="cifar", image_size=8),
    "wrn": lambda: WRN16_4(1, 3, 3, width=1 / 16, image_size=8, neuron=LIF(0.5, 0.3)),
}
IMAGES = torch.rand(5, 1, 8, 8, generator=stream(0, "x"))


def network(name):
    model = NETWORKS[name]()
    model(IMAGES)  # statistics of normalisation
    return model.eval()


def called(model, x=IMAGES):
    with torch.no_grad(), randomness(model, SampleStreams(0, range(len(x)))):
        return model(x)


@pytest.mark.parametrize("each_neuron", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kernel", KERNEL)
def test_counts_are_those_of_the_recorded_spikes(kernel, name, each_neuron):
    model = network(name)
    with use_kernel(kernel):
        with record(model) as trace:
            called(model)
        with count_spikes(model, each_neuron=each_neuron) as counts:
            called(model)
    assert list(counts) == list(trace) and len(counts) > 0
    assert sum(int(layer.spikes.sum()) for layer in counts.values()) > 0
    for layer, seen in trace.items():
        found = counts[layer]
        assert torch.equal(found.spikes, seen.spikes.flatten(2).sum(2).long())
        assert found.neurons == seen.spikes[0, 0].numel()
        if each_neuron:
            assert torch.equal(found.each, seen.spikes.sum((0, 1)).long())
        else:
            assert found.each is None


@pytest.mark.parametrize("window", [2, 3, (1, 5)])
def test_the_means_of_a_pooling_window_give_whole_counts(window):
    layers = [nn.Conv2d(2, 7, 3, padding=1), LIF(0.5, 0.2), nn.AvgPool2d(window), nn.Flatten()]
    size = (12, 30)
    rows, columns = (window, window) if isinstance(window, int) else window
    layers.append(nn.Linear(7 * (size[0] // rows) * (size[1] // columns), 3))
    model = SNN({"all": TimeSequential(*layers)}, T=3, num_classes=3, in_shape=(2, *size)).eval()
    x = torch.rand(4, 2, *size, generator=stream(0, "x"))
    with record(model) as trace:
        called(model, x)
    with count_spikes(model) as counts:
        called(model, x)
    (seen,), (found,) = trace.values(), counts.values()
    assert torch.equal(found.spikes, seen.spikes.flatten(2).sum(2).long())
    assert found.neurons == 7 * size[0] * size[1]


@pytest.mark.skipif(why_not("cpu") is not None, reason=f"cpu: {why_not('cpu')}")
def test_a_counter_leaves_the_fast_paths_in_use_and_the_logits_the_same(monkeypatch):
    model = network("cnn")
    fast, pooled = [], []
    real_conv, real_averages = efficient_layers._Conv.apply, LIF.averages
    monkeypatch.setattr(efficient_layers._Conv, "apply", lambda *a: fast.append(1) or real_conv(*a))
    monkeypatch.setattr(LIF, "averages", lambda *a: pooled.append(real_averages(*a)) or pooled[-1])
    expected, plain = called(model), (len(fast), list(pooled))
    fast.clear(), pooled.clear()
    with count_spikes(model):
        assert torch.equal(called(model), expected)
    assert (len(fast), pooled) == plain and plain[0] == 3 and any(pooled)
    pooled.clear()
    with count_spikes(model, each_neuron=True):
        assert torch.equal(called(model), expected)
    assert not any(pooled)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_gate_that_drops_spikes_counts_those_that_pass():
    model = MLP(64, 3, 3, in_shape=(1, 8, 8), hidden=(9,), neuron=StoG(0.5, 0.3, v_th=0.2)).eval()
    with count_spikes(model) as counts, record(model) as trace:
        called(model)
    (found,), (seen,) = counts.values(), trace.values()
    assert 0 < int(found.spikes.sum()) < int(seen.spikes.sum())


def test_a_neuron_that_is_used_twice_counts_as_two():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = LIF(0.5)

        def forward(self, x):
            return (
                self.neuron(x.expand(2, *x.shape)).sum(0) + self.neuron(x.new_ones(2, *x.shape))[0]
            )

    model, x = Twice(), torch.tensor([[1.0, 0.0, 1.0]])
    with count_spikes(model, each_neuron=True) as counts:
        model(x)
        model(x)  # the counts are those of the last pass
    assert counts["neuron"].spikes.tolist() == [[5], [5]] and counts["neuron"].neurons == 6
    assert counts["neuron"].each.tolist() == [2, 0, 2, 2, 2, 2]


def test_joined_counts_are_those_of_all_images_at_once():
    model, passes = network("cnn"), []
    with count_spikes(model, each_neuron=True) as counts:
        called(model)
        whole = dict(counts)
        for part in IMAGES.split(2):
            called(model, part)
            passes.append(dict(counts))
    for name, found in joined_spikes(passes).items():
        assert torch.equal(found.spikes, whole[name].spikes)
        assert torch.equal(found.each, whole[name].each)


@pytest.mark.parametrize("node", [LIFNode, Leaky, LIFSpike], ids=lambda node: node.__name__)
def test_foreign_layers_are_counted_without_a_recurrence(node):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), node(), nn.Linear(20, 3))
    if node is LIFSpike:
        net = Folded(net)
    model = sg.foreign(drawn(net, 0.4, stream(0, "toy")), T=T, example=IMAGES).eval()
    with record(model) as trace:
        called(model)
    with count_spikes(model, each_neuron=True) as counts:
        called(model)
    assert list(counts) == list(trace)
    (found,), (seen,) = counts.values(), trace.values()
    assert torch.equal(found.spikes, seen.spikes.flatten(2).sum(2).long())
    assert torch.equal(found.each, seen.spikes.sum((0, 1)).long())
    assert int(found.spikes.sum()) > 0 and found.neurons == 20


class Folded(nn.Module):
    """Folds the time steps of an image into the batch, as code of papers does."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        out = self.net(x.repeat(T, 1, 1, 1))
        return out.view(T, -1, out.shape[-1])

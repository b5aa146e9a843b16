"""Accumulate operations against SpikingJelly's SynOpCounter: where both agree, and where not."""

import warnings

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.models import CNN, MLP, SEWResNet
from spikeguard.models.snn import SNN, TimeSequential
from spikeguard.models.synaptic_operations import count_operations
from spikeguard.neurons import LIF
from spikeguard.rng import stream
from tests.toys.fitting import drawn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    counting = pytest.importorskip(
        "spikingjelly.activation_based.op_counter",
        reason="SpikingJelly is missing: make bench-peers",
    )
    base = pytest.importorskip("spikingjelly.activation_based.neuron")
    layer = pytest.importorskip("spikingjelly.activation_based.layer")

T = 4
FIRING = LIF(0.5, 0.3)


def theirs(model, x):
    """Return SynOpCounter's operations of an image."""
    counter = counting.SynOpCounter()
    with torch.no_grad(), counting.DispatchCounterMode([counter]):
        model(x)
    return counter.get_total() / len(x)


def ours(model, x):
    """Return ACs and MACs of an image, without the first layer, which gets pixels."""
    with torch.no_grad(), count_operations(model) as counts:
        model(x)
    parts = [(found.graded, int(found.effective.sum())) for found in counts.values()][1:]
    return tuple(sum(n for kind, n in parts if kind is graded) / len(x) for graded in (False, True))


def images(*shape):
    return torch.rand(*shape, generator=stream(0, "x"))


def settled(model, x):
    model(x)
    return model.eval()


def strided():
    """Return convolutions with stride, groups and a rectangular padding on spikes."""
    layers = [
        *(nn.Conv2d(3, 8, 3, padding=1), LIF(0.5, 0.2)),
        *(nn.Conv2d(8, 12, (3, 5), stride=(2, 1), padding=(1, 2), groups=4), LIF(0.5, 0.2)),
        *(nn.MaxPool2d(2), nn.Conv2d(12, 6, 2, stride=3), LIF(0.5, 0.1)),
        *(nn.Flatten(), nn.LazyLinear(10)),
    ]
    model = SNN({"all": TimeSequential(*layers)}, T=T, num_classes=10, in_shape=(3, 13, 16))
    return settled(model, images(6, 3, 13, 16))


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda x: settled(MLP(784, 10, T, hidden=(256, 128), neuron=LIF(0.5, 0.1)), x), (784,)),
        (lambda x: strided(), (3, 13, 16)),
        (
            lambda x: settled(
                sg.models.SpikingResNet(3, 10, T, width=1 / 8, stem="cifar", neuron=FIRING), x
            ),
            (3, 32, 32),
        ),
    ],
    ids=["mlp", "strides and groups", "spiking resnet"],
)
def test_spikes_give_the_same_count(build, shape):
    """The last layer of the ResNet gets means, which SynOpCounter leaves out."""
    x = images(6, *shape)
    model = build(x)
    ac, _ = ours(model, x)
    assert ac > 0
    assert theirs(model, x) == ac


@pytest.mark.parametrize("mode", ["m", "s"])
def test_a_network_of_spikingjelly_gives_the_same_count(mode):
    net = nn.Sequential(
        layer.Conv2d(1, 6, 3, padding=1, step_mode=mode),
        base.LIFNode(tau=2.0, decay_input=False, step_mode=mode),
        layer.Conv2d(6, 4, 3, stride=2, step_mode=mode),
        base.LIFNode(tau=2.0, decay_input=False, step_mode=mode),
        layer.Flatten(step_mode=mode),
        layer.Linear(36, 3, step_mode=mode),
    )
    x = images(5, 1, 8, 8)
    model = sg.foreign(drawn(net, 0.5, stream(0, "peer")), T=T, example=x).eval()
    ac, mac = ours(model, x)
    assert mac == 0 and ac > 0
    assert theirs(model, x) == ac


def test_it_leaves_out_graded_inputs():
    """Behind average pooling and sums of spikes it counts nothing; those are our MACs."""
    x = images(6, 1, 28, 28)
    model = settled(CNN(1, 10, T, width=8, neuron=FIRING), x)
    ac, mac = ours(model, x)
    assert mac > ac > 0 and theirs(model, x) == ac
    x = images(6, 3, 32, 32)
    model = settled(SEWResNet(3, 10, T, width=1 / 8, stem="cifar", neuron=FIRING), x)
    ac, mac = ours(model, x)
    assert mac > 0 and ac > 0 and theirs(model, x) == ac


def test_its_count_depends_on_the_batch_and_ours_does_not():
    """It decides for every call whether an input is spikes; means of no spikes look like them."""
    x = torch.zeros(2, 1, 8, 8)
    x[0, 0, 2:4, 2:4] = 1  # fills one window: means of 1
    x[1, 0, 2, 2] = 1  # a mean of 1/4
    layers = [nn.Conv2d(1, 1, 1, bias=False), LIF(0.5), nn.AvgPool2d(2)]
    layers += [nn.Conv2d(1, 5, 3, padding=1), LIF(0.5, 1e6), nn.Flatten(), nn.Linear(80, 2)]
    model = SNN({"all": TimeSequential(*layers)}, T=T, num_classes=2, in_shape=(1, 8, 8)).eval()
    with torch.no_grad():
        model.all[0].weight.fill_(1)
        model.all[3].weight.fill_(0.5)
    first = 5  # pixels of 0 and 1 through the 1x1 convolution, both images
    assert 2 * theirs(model, x) == first
    one = sum(theirs(model, image[None]) for image in x)
    assert one == first + T * 5 * 9  # the first image alone
    assert ours(model, x)[1] == T * 5 * 9  # MACs, the mean of both


def test_it_counts_weights_of_zero():
    x = images(6, 784)
    model = settled(MLP(784, 10, T, hidden=(64, 32), neuron=LIF(0.5, 0.1)), x)
    with torch.no_grad():
        model.classifier[3].weight[::2] = 0
    assert theirs(model, x) > ours(model, x)[0] > 0

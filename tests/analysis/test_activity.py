"""Analysis ``activity`` on networks whose spikes are known beforehand."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import Activity
from spikeguard.analysis.base import NotApplicable
from spikeguard.models import CNN, SNN
from spikeguard.models.snn import TimeSequential
from spikeguard.neurons import IF, LIF
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import LIFNode, T


def network():
    """Return a network with three neurons: silent, always firing, and firing in every second step.

    The pixel is the current of an IF neuron with threshold 1, times 0, 4 and 2.
    """
    layers = [nn.Flatten(), nn.Linear(1, 3, bias=False), IF(1.0), nn.Linear(3, 2)]
    model = SNN({"all": TimeSequential(*layers)}, T=4, num_classes=2, in_shape=(1, 1, 1))
    with torch.no_grad():
        model.all[1].weight.copy_(torch.tensor([[0.0], [4.0], [2.0]]))
    return model.eval()


def measured(*pixels, **options):
    x = torch.tensor(pixels).view(-1, 1, 1, 1)
    return Activity(**options)(network(), (x, torch.zeros(len(x), dtype=torch.int64)))


def test_rates_and_useless_neurons_of_three_known_neurons():
    found = measured(0.25)  # currents 0, 1 and 0.5
    assert found["rate"].tolist() == [[1 / 3, 2 / 3, 1 / 3, 2 / 3]]
    assert found["spikes"].tolist() == [[1, 2, 1, 2]]
    assert (found["silent"].tolist(), found["saturated"].tolist()) == ([1 / 3], [1 / 3])
    assert found["neurons"].tolist() == [3] and found.axes["layer"].tolist() == ["all.2"]
    assert found.number("total", of="mean") == 6 and np.isnan(found.number("total", of="low"))


def test_a_neuron_is_silent_or_saturated_over_all_images_together():
    found = measured(0.25, 0.0, 0.5)  # currents 0 1 0.5, 0 0 0, 0 2 1: spikes 6, 0, 8
    assert (found["silent"].tolist(), found["saturated"].tolist()) == ([1 / 3], [0.0])
    assert found["image_spikes"].tolist() == [6, 0, 8]
    mean, half = 14 / 3, 1.959964 * np.std([6, 0, 8], ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(found["total"], [mean, mean - half, mean + half])
    assert measured(0.25, 0.0, 0.5, limit=1)["image_spikes"].tolist() == [6]


def test_the_table_has_a_row_for_each_layer_and_one_for_all():
    table = Activity.table({"toy": measured(0.25, 0.25)})
    layer, whole = table.rows
    assert layer == ("toy", "all.2", "3", "50.0 %", "33.3 %", "33.3 %", "6")
    assert whole == ("toy", "all", "3", "50.0 %", "33.3 %", "33.3 %", "6 [6, 6]")
    assert Activity.result({"toy": measured(0.25)}) == "Spikes of an image: 6"
    both = {"a": measured(0.25), "b": measured(0.0)}
    assert Activity.result(both) == "Spikes of an image: 0 (b) to 6 (a)"


def test_neurons_before_average_pooling_are_counted_one_by_one():
    model = CNN(1, 3, 3, width=4, hidden=6, image_size=8, neuron=LIF(0.5, 1e6)).eval()
    x = torch.rand(4, 1, 8, 8, generator=stream(0, "x"))
    found = Activity()(model, (x, torch.zeros(4, dtype=torch.int64)))
    assert found["neurons"].tolist() == [4 * 64, 8 * 16, 16 * 4, 6]
    assert found["silent"].tolist() == [1, 1, 1, 1] and found["rate"].max() == 0


def test_a_foreign_network_is_measured_though_its_presentation_is_not_detected_yet():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), LIFNode(), nn.Linear(20, 3))
    model = sg.foreign(drawn(net, 0.4, stream(0, "toy")), T=T).eval()
    x = torch.rand(5, 1, 8, 8, generator=stream(0, "x"))
    found = Activity()(model, (x, torch.zeros(5, dtype=torch.int64)))
    with sg.neurons.record(model) as trace, torch.no_grad():
        model(x)
    (seen,) = trace.values()
    np.testing.assert_allclose(found["rate"][0], seen.spikes.mean((1, 2)).numpy(), rtol=1e-6)
    assert found["rate"].max() > 0


def test_a_network_without_spiking_layers_is_rejected():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(NotApplicable, match="no spiking layer"):
        Activity()(model, (torch.rand(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64)))

"""Analysis ``operations`` on networks whose operations are counted by hand."""

import numpy as np
import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.analysis import Operations
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.membrane_updates import membrane_updates
from spikeguard.models import SNN, SEWResNet
from spikeguard.models.snn import TimeSequential
from spikeguard.neurons import IF, LIF, record
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import LIFNode, T


def network(*, pool):
    """Return conv 3x3, one channel that copies the image, IF, maybe a pooling, conv 3x3, linear.

    A pixel of 1 fires in all 4 steps.
    """
    between = [nn.AvgPool2d(2)] if pool else []
    side = 2 if pool else 4
    layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False), IF(1.0), *between]
    layers += [nn.Conv2d(1, 5, 3, padding=1, bias=False), LIF(0.5, 1e6)]
    layers += [nn.Flatten(), nn.Linear(5 * side**2, 2)]
    model = SNN({"all": TimeSequential(*layers)}, T=4, num_classes=2, in_shape=(1, 4, 4))
    with torch.no_grad():
        model.all[0].weight.zero_()[0, 0, 1, 1] = 1
    return model.eval()


def image(*places):
    x = torch.zeros(1, 1, 4, 4)
    for row, column in places:
        x[0, 0, row, column] = 1
    return x


def measured(model, x, **options):
    return Operations(**options)(model, (x, torch.zeros(len(x), dtype=torch.int64)))


def test_a_spike_at_the_corner_and_one_in_the_middle_by_hand():
    found = measured(network(pool=False), torch.cat([image((0, 0)), image((1, 1))]))
    assert found.axes["layer"].tolist() == ["all.0", "all.2", "all.5"]
    assert found["kind"].tolist() == ["AC", "AC", "AC"]  # pixels of 0 and 1 are spikes
    # one weight is not 0; 4 steps of 4 or 9 targets in 5 channels; no spike after that
    assert found["effective"].tolist() == [1, 4 * 5 * (4 + 9) / 2, 0]
    assert found["steps"].tolist() == [1, 4, 4]
    taps = 4 * 9 + 8 * 6 + 4 * 4
    assert found["dense"].tolist() == [taps, 4 * 5 * taps, 4 * 2 * 80]
    assert found.number("Effective_ACs", of="mean") == 1 + 130
    assert found.number("Effective_MACs", of="mean") == 0
    assert float(found["Dense"]) == taps * 21 + 640


def test_behind_average_pooling_an_input_that_is_not_zero_is_a_mac():
    found = measured(network(pool=True), image((0, 0), (0, 1), (3, 3)))
    assert found["kind"].tolist() == ["AC", "MAC", "AC"]
    # means 0.5 and 0.25 in two of four corners; each has 4 targets in 5 channels, in 4 steps
    assert found["effective"].tolist() == [3, 4 * 5 * 2 * 4, 0]
    assert found.number("Effective_MACs", of="mean") == 160


def test_direct_coding_is_counted_once_and_in_every_step():
    found = measured(network(pool=False), 0.5 * image((0, 0)))  # fires in steps 2 and 4
    assert found["kind"].tolist() == ["MAC", "AC", "AC"]
    assert found.number("Effective_MACs", of="mean") == 1
    assert found.number("every_step_MACs", of="mean") == 4
    assert found.number("Effective_ACs", of="mean") == 2 * 5 * 4
    taps = 4 * 9 + 8 * 6 + 4 * 4
    assert float(found["every_step_Dense"]) - float(found["Dense"]) == 3 * taps
    assert found.number("energy", of="mean") == pytest.approx((4.6 + 0.9 * 40) / 1000)
    assert found.number("every_step_energy", of="mean") == pytest.approx((18.4 + 36) / 1000)


def test_the_energies_can_be_replaced_and_must_not_be_negative():
    found = measured(network(pool=False), 0.5 * image((0, 0)), mac_pj=100.0, ac_pj=1.0)
    assert found.number("energy", of="mean") == pytest.approx(0.14)
    with pytest.raises(ValueError, match="energies are >= 0 pJ"):
        Operations(ac_pj=-1.0)


def test_a_network_that_gets_a_black_image_does_nothing():
    found = measured(network(pool=True), image())
    assert found["effective"].tolist() == [0, 0, 0]
    assert found.number("energy", of="mean") == 0
    # 20 + 16 potentials in the first step, none changes later
    assert found.number("Membrane_Updates", of="mean") == 16 + 5 * 4


def test_membrane_updates_are_the_potentials_that_change():
    """By hand: IF with threshold 1 and currents 0, 0.4 and 1 in 4 steps.

    u: 0 0 0 0; 0.4 0.8 0 0.4 (fires at 1.2); 0 0 0 0 (fires in every step): 3 + 0 + 3 + 0.
    """
    neuron = IF(1.0)
    model = nn.Sequential(neuron)
    with record(model) as trace:
        model(torch.tensor([0.0, 0.4, 1.0]).view(1, 1, 3).expand(4, 1, 3))
    assert membrane_updates(trace).tolist() == [6]


def test_the_sums_of_a_sew_block_are_macs_of_their_entries_that_are_not_zero():
    model = SEWResNet(1, 3, 3, width=1 / 16, stem="cifar", image_size=8, neuron=LIF(0.5, 0.2))
    x = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
    model(x)
    found = measured(model.eval(), x)
    kinds = dict(zip(found.axes["layer"].tolist(), found["kind"].tolist(), strict=True))
    assert kinds["features.3.residual.0"] == "AC" and kinds["features.4.residual.0"] == "MAC"
    seen = []
    block = model.features[4].residual[0]
    handle = block.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad():
        model(x)
    handle.remove()
    with torch.no_grad():  # ones through weights of one count the operations
        ones = torch.nn.functional.conv2d(
            (seen[0] != 0).double(), torch.ones_like(block.weight).double(), padding=1
        )
    assert found.number("effective", layer="features.4.residual.0") == float(ones.sum()) / 6
    assert float(seen[0].max()) == 2


def test_a_foreign_layer_without_a_known_recurrence_has_no_membrane_updates(monkeypatch):
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 20), LIFNode(), nn.Linear(20, 3))
    model = sg.foreign(drawn(net, 0.6, stream(0, "toy")), T=T).eval()
    x = torch.rand(5, 1, 4, 4, generator=stream(0, "x"))
    found = measured(model, x)
    assert found["steps"].tolist() == [T, T]  # it is computed in every step
    assert found.number("Effective_MACs", of="mean") == 16 * 20 * T
    assert found.number("Membrane_Updates", of="mean") > 20
    (layer,) = model.spiking_layers().values()
    monkeypatch.setattr(layer.framework, "dynamics", _unknown)
    again = measured(model, x)
    assert np.isnan(again["Membrane_Updates"]).all()
    np.testing.assert_array_equal(again["effective"], found["effective"])


def _unknown(module):
    raise ValueError("not known")


def test_layers_that_are_not_counted_are_named_in_the_caption():
    model = nn.Sequential(nn.ConvTranspose2d(1, 1, 3), nn.Flatten(), nn.Linear(36, 2))
    found = measured(model, image((0, 0)))
    assert found["not_counted"].tolist() == ["0"]
    assert Operations.table({"toy": found}).caption.endswith("Not counted: 0.")
    with pytest.raises(NotApplicable, match="convolutions or linear layers"):
        measured(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16)), image((0, 0)).expand(2, 1, 4, 4))

"""Gates of DLIF: constant ones, both places of the gate, and after training."""

import numpy as np
import pytest
import torch

from spikeguard.analysis import Gates
from spikeguard.analysis.base import NotApplicable
from spikeguard.models import CNN
from spikeguard.neurons import DLIF, LIF, record
from spikeguard.rng import stream
from tests.toys.fitting import fitted

X = torch.rand(60, 1, 8, 8, generator=stream(0, "x"))
Y = (X.flatten(1).mean(1) > 0.5).long()


def network(neuron):
    return CNN(1, 2, T=3, width=3, hidden=6, image_size=8, neuron=neuron, generator=stream(0, "w"))


@pytest.mark.parametrize("on", ["input", "leak"])
def test_gates_of_1_are_a_lif_neuron(on):
    found = Gates()(network(DLIF(3, on, decay=0.8)), (X, Y))
    assert (found["gate"] == 1).all() and set(found["on"]) == {on}
    assert np.isnan(found["effective_decay"][:, 0]).all()
    np.testing.assert_allclose(found["effective_decay"][:, 1:], 0.8)
    assert (found["of_layer"] == 1).all() and (found["of_step"] == 1).all()
    assert Gates.result({"a": found}) == "Gates of DLIF after training: 1.00 to 1.00, mean 1.00"


@pytest.mark.parametrize(("on", "expected"), [("leak", [0.4, 1.6]), ("input", [0.8 * 2, 0.8 / 4])])
def test_effective_decay_by_hand(on, expected):
    model = network(DLIF(3, on, decay=0.8))
    for neuron in model.modules():
        if isinstance(neuron, DLIF):
            neuron.a.data = torch.tensor([1.0, 0.5, 2.0])
    found = Gates()(model, (X, Y))
    np.testing.assert_allclose(found["effective_decay"][:, 1:], [expected] * len(found["on"]))


def test_a_neuron_with_the_effective_decay_and_threshold_fires_alike():
    """v / a of a gated input is the potential of an ungated neuron with threshold v_th / a."""
    gates = torch.tensor([1.0, 0.5, 2.0])
    neuron = DLIF(3, decay=0.8)
    neuron.a.data = gates.clone()
    current = torch.rand(3, 4, 5, generator=stream(0, "i"))
    with record(neuron) as trace, torch.no_grad():
        neuron(current)
    (seen,) = trace.values()
    decay = [float("nan"), 0.8 * 2, 0.8 / 4]
    u = torch.zeros(4, 5)
    for t in range(3):
        v = current[t] + (decay[t] * u if t else 0)
        torch.testing.assert_close(v, seen.v[t] / gates[t])
        u = v * (v < 1 / gates[t])


def test_gates_that_are_not_positive_have_no_effective_decay():
    model = network(DLIF(3, decay=0.8))
    for neuron in model.modules():
        if isinstance(neuron, DLIF):
            neuron.a.data = torch.tensor([1.0, -0.5, 2.0])
    assert np.isnan(Gates()(model, (X, Y))["effective_decay"]).all()


def test_training_moves_the_gates_and_they_are_read_as_they_are():
    model = fitted(network(DLIF(3, decay=0.9, v_th=0.3)), (X, Y), 3, stream(0, "order"))
    found = Gates()(model, (X, Y))
    assert abs(found["gate"] - 1).max() > 1e-3
    for name, gates in zip(found.axes["layer"], found["gate"], strict=True):
        np.testing.assert_allclose(gates, model.get_submodule(name).a.detach().numpy())


def test_a_network_without_dlif_is_not_measured():
    with pytest.raises(NotApplicable, match="the network has no DLIF layer"):
        Gates()(network(LIF(0.9)), (X, Y))

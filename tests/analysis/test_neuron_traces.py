"""Analysis ``traces``: known potentials of known neurons."""

import numpy as np
import pytest

from spikeguard.analysis import Traces
from spikeguard.neurons import LIF
from tests.toys.single_neurons import Negative, Steps, Swapped, pixels

# LIF, decay 1/2, T = 3; two neurons an image. Current 1 fires three times, 5/8 once at the last
# step, 1/16 never.
DATA = pixels((1 / 16, 5 / 8), (1.0, 1 / 16))
ATTACK = Swapped(((1.0, 1 / 16), (5 / 8, 1.0)))


def lif():
    return Steps(LIF(decay=0.5), T=3)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_the_neuron_that_changes_most_and_its_potentials(batch_size):
    m = Traces(ATTACK, changed=2, random=0)(lif(), DATA, batch_size=batch_size)
    assert m.axes["neuron"].tolist() == ["neuron:0@1", "neuron:1@0"]
    assert m["v"].tolist() == [
        [[1, 1, 1], [0.0625, 0.09375, 0.109375]],
        [[0.625, 0.9375, 1.09375], [1, 1, 1]],
    ]
    assert m["spikes"].tolist() == [[[1, 1, 1], [0, 0, 0]], [[0, 0, 1], [1, 1, 1]]]
    assert m["chosen"].tolist() == ["largest change", "largest change"]
    assert m.number("changed", layers="all layers") == 2 / 4


def test_potentials_are_in_units_of_the_threshold():
    m = Traces(ATTACK, neurons="neuron:0@1", changed=0)(Steps(LIF(decay=0.5, v_th=2.0), T=3), DATA)
    assert m["v"][0, 0].tolist() == [0.5, 0.75, 0.875]  # current 1 without a spike


def test_given_neurons_come_first_and_are_not_shown_twice():
    m = Traces(ATTACK, neurons="neuron:1@1,neuron:0@1", changed=1, random=3)(lif(), DATA)
    names = m.axes["neuron"].tolist()
    assert names[:2] == ["neuron:1@1", "neuron:0@1"]
    assert m["chosen"].tolist()[:2] == ["given", "given"]
    assert len(set(names)) == len(names)


def test_random_neurons_are_the_same_for_every_batch_size(snn, x, y):
    one, two = (Traces(Negative())(snn, (x, y), seed=4, batch_size=size) for size in (2, 64))
    assert one.axes["neuron"].tolist() == two.axes["neuron"].tolist()
    assert one["chosen"].tolist() == ["largest change"] * 2 + ["random"] * 2
    np.testing.assert_allclose(one["v"], two["v"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ("other:0", "other:0@0 names no spiking layer; there are neuron"),
        ("neuron:2", "neuron:2@0 does not exist; neuron has neurons 0 to 1"),
        ("neuron:0@2", "and there are images 0 to 1"),
    ],
)
def test_a_neuron_that_does_not_exist_is_rejected(neurons, message):
    with pytest.raises(ValueError, match=message):
        Traces(ATTACK, neurons=neurons)(lif(), DATA)


@pytest.mark.parametrize("options", [{"changed": -1}, {"random": -1}, {"changed": 0, "random": 0}])
def test_a_number_of_neurons_is_rejected(options):
    with pytest.raises(ValueError, match="numbers of neurons >= 0, at least one"):
        Traces(ATTACK, **options)
    with pytest.raises(ValueError, match="LAYER:PLACE"):
        Traces(ATTACK, neurons="neuron")


def test_every_neuron_has_a_chart_on_the_same_axes():
    m = Traces(ATTACK, changed=2, random=0)(lif(), DATA)
    plots = Traces.plots({"a": m, "b": m})
    assert len(plots) == 4 and len({plot.y_range for plot in plots}) == 1
    low, high = plots[0].y_range
    assert low < m["v"].min() and high > m["v"].max()
    assert plots[0].summary == "a, neuron:0@1: 3 spikes on the clean image, 0 on the attacked one."
    assert Traces.table({"a": m}).rows[0][3:] == ("1.00*, 1.00*, 1.00*", "0.06, 0.09, 0.11")

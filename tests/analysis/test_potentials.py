"""Analysis ``potentials``: known currents give known counts by input, layer and step."""

import numpy as np
import pytest
import torch

from spikeguard.analysis import Activity, Potentials, default_edges, membrane_histogram
from spikeguard.analysis.base import NotApplicable
from spikeguard.models import CNN
from spikeguard.neurons import IF, LIF, StoG
from spikeguard.system.intervals import wilson
from tests.toys.single_neurons import Negative, Steps, Swapped, pixels

# LIF, decay 1/2, hard reset, T = 3. Current 5/8: v = .625, .9375, 1.09375 (fires); current 1/16:
# v = .0625, .09375, .109375; current 1: v = 1, 1, 1, each exactly at the threshold.
CURRENTS = pixels(5 / 8, 1 / 16, 1.0)


def lif():
    return Steps(LIF(decay=0.5), T=3)


def at(m, x, step, which=0):
    """Number of potentials of one step in the bin that holds x."""
    place = np.searchsorted(m.axes["bin"], x, side="right") - 1
    return m["counts"][which, 0, step - 1, place]


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_known_currents_give_known_counts(batch_size):
    attack = Swapped(((5 / 8, 1 / 16),))
    m = Potentials(attack)(lif(), CURRENTS, batch_size=batch_size)
    assert m["near_count"].tolist() == [[[1, 2, 2]], [[1, 1, 1]]]
    assert m["spikes"].tolist() == [[[1, 1, 2]], [[1, 1, 1]]]
    assert m["near_by_image"].tolist() == [[2, 0, 3], [0, 0, 3]]
    assert (at(m, -0.375, 1), at(m, -0.0625, 2), at(m, 0.09375, 3)) == (1, 1, 1)
    assert [at(m, 0.0, step) for step in (1, 2, 3)] == [1, 1, 1]
    assert [at(m, -0.9375, 1, which) for which in (0, 1)] == [1, 2]
    assert m.number("near", input="clean", layers="neuron") == 5 / 9
    assert m.number("near", input="attacked", layers="all layers") == 3 / 9
    assert m["size"].tolist() == [3, 3]


def test_a_margin_of_its_own():
    m = Potentials(Swapped(), margin=0.5)(lif(), CURRENTS)
    assert m["near_count"].tolist() == 2 * [[[2, 2, 2]]]  # .625 too
    with pytest.raises(ValueError, match=r"potentials: margin is a distance .* got 0"):
        Potentials(Swapped(), margin=0)


def test_the_sum_of_every_histogram_is_the_number_of_neurons_times_images(snn, x, y):
    m = Potentials(Negative())(snn, (x, y))
    neurons = [4 * 64, 8 * 16, 16 * 4, 6]
    whole = np.broadcast_to(5 * np.array(neurons)[None, :, None], (2, 4, 3))
    np.testing.assert_array_equal(m["counts"].sum(-1), whole)
    assert m["size"].tolist() == [*(3 * n for n in neurons), 3 * sum(neurons)]


def test_clean_counts_are_those_of_the_histogram(x, y):
    neuron = LIF(0.5, v_th=0.2)
    model = CNN(1, 3, T=3, width=4, hidden=6, image_size=8, neuron=neuron).eval()
    m = Potentials(Negative())(model, (x, y))
    known = membrane_histogram(model, (x, y))
    assert all(counts.near > 0 for counts in known.layers.values())
    for place, (name, counts) in enumerate(known.layers.items()):
        assert m.axes["layer"][place] == name
        np.testing.assert_array_equal(m["counts"][0, place].sum(0), counts.counts)
        for ours, theirs in (("near_count", "near"), ("active", "active"), ("spikes", "spikes")):
            assert m[ours][0, place].sum() == getattr(counts, theirs)
    np.testing.assert_array_equal(m.axes["bin"], default_edges()[:-1])
    share = m.number("near", input="clean", layers="all layers")
    assert share == pytest.approx(known.near_threshold)
    assert m["near_by_image"][0].sum() == known.pooled.near


def test_the_axis_leaves_out_less_than_a_hundredth_of_the_potentials():
    """Of 1000 potentials with distances -1 and 0, eight are at 3 and four at 1.5."""
    values = [0.0] * 494 + [0.25] * 494 + [1.0] * 8 + [0.625] * 4
    m = Potentials(Swapped(), limit=None)(Steps(IF(v_th=0.25), T=1), pixels(*values))
    (plot,) = (p for p in Potentials.plots({"a": m}) if p.name == "histogram-0")
    assert plot.x_range[0] == -1.5 and plot.x_range[1] == pytest.approx(3.05)
    few = [0.0] * 497 + [0.25] * 499 + [1.0] * 4
    m = Potentials(Swapped(), limit=None)(Steps(IF(v_th=0.25), T=1), pixels(*few))
    (plot,) = (p for p in Potentials.plots({"a": m}) if p.name == "histogram-0")
    assert plot.x_range == (-1.5, 0.5)
    assert "0.4 % outside the chart" in plot.summary


def test_an_attack_that_does_nothing_and_an_attack_that_is_its_own_inverse(snn, x, y):
    same = Potentials(Swapped())(snn, (x, y))
    np.testing.assert_array_equal(same["counts"][0], same["counts"][1])
    there, back = (Potentials(Negative())(snn, (each, y)) for each in (x, 1 - x))
    np.testing.assert_array_equal(there["counts"], back["counts"][::-1])


def test_the_change_is_relative_to_the_first_network():
    near, far = (Steps(IF(v_th=v), T=1) for v in (0.5, 1.0))
    data = pixels(0.5, 0.4375, 1.0, 0.125)  # near 0.5: two of them; near 1: one
    found = {"a": Potentials(Swapped())(near, data), "b": Potentials(Swapped())(far, data)}
    assert Potentials.result(found) == (
        "Potentials within 0.2 v_th of the threshold: a 50.0 % (attacked 50.0 %); "
        "b 25.0 % (attacked 25.0 %, \N{MINUS SIGN}50 %)"
    )
    rows = Potentials.table(found).rows
    assert [row[4] for row in rows[:3]] == ["-", "-", "-"]
    assert rows[3][4].startswith("\N{MINUS SIGN}50 % [\N{MINUS SIGN}100 %, ")


def test_none_near_the_threshold_has_an_interval():
    m = Potentials(Swapped())(Steps(IF(), T=1), pixels(*[0.25] * 20))
    where = {"input": "clean", "layers": "all layers"}
    assert m.number("near", **where) == 0
    assert m.number("near_high", **where) == wilson(0, 20)[1]


def test_a_network_of_many_layers_pools_the_steps_of_its_map(snn, x, y):
    m = Potentials(Negative())(snn, (x, y))
    (heat,) = next(p for p in Potentials.plots({"a": m}) if p.name == "map-0").marks
    assert len(heat.y) == 12 and heat.y[0] == f"{m.axes['layer'][0]}, 1"
    long = Potentials(Swapped())(Steps(LIF(decay=0.5), T=40), CURRENTS)
    (heat,) = next(p for p in Potentials.plots({"a": long}) if p.name == "map-0").marks
    assert heat.y == ["neuron"]


def test_a_network_without_spiking_layers_has_no_potentials():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(1, 2))
    with pytest.raises(NotApplicable, match="Sequential has no spiking layer"):
        Potentials(Swapped())(model, CURRENTS)


def test_a_stochastic_gate_halves_the_spikes_and_leaves_the_threshold_crossings():
    """Open gates: both shares are equal. With p = 1/2 about half of the crossings pass, and the
    columns have different names."""
    crossings, rates = {}, {}
    for p in (1.0, 0.5):
        model, data = Steps(StoG(p=p, shape=()), T=3), pixels(*[1.0] * 400)
        crossed, passed = Potentials(Swapped(), limit=None)(model, data), Activity()(model, data)
        crossings[p] = float(crossed["spikes"][0].sum() / (3 * 400))
        rates[p] = float(passed["rate"].mean())
    assert crossings == {1.0: 1.0, 0.5: 1.0}
    assert rates[1.0] == 1 and abs(rates[0.5] - 0.5) < 4 * 0.5 / (3 * 400) ** 0.5
    assert "Threshold crossings" in Potentials.table({"a": crossed}).head
    assert "Rate" in Activity.table({"a": passed}).head

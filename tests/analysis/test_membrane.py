"""Membrane histograms: known currents give known counts for any batch size; no side effects."""

import doctest
import math

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.analysis import MembraneHistogram, default_edges, membrane, membrane_histogram
from spikeguard.models import MLP
from spikeguard.neurons import IF, LIF, NoisyLIF, Triangular
from spikeguard.rng import stream
from tests.toys.single_neurons import Steps, pixels


def only(found):
    (counts,) = found.layers.values()
    return counts


def at(found, x):
    """Number of potentials in the bin that holds x."""
    return int(only(found).counts[np.searchsorted(found.edges, x, side="right") - 1])


def test_example_in_the_docstring():
    assert doctest.testmod(membrane).failed == 0


def test_known_currents_give_known_counts():
    """LIF, decay 1/2, hard reset, T = 3. Current 5/8: v = .625, .9375, 1.09375 (fires); current
    1/16: v = .0625, .09375, .109375; current 1: v = 1, 1, 1, each exactly at the threshold."""
    model = Steps(LIF(decay=0.5), T=3)
    found = membrane_histogram(model, pixels(5 / 8, 1 / 16, 1.0), bins=[-1, -0.5, -0.25, 0, 0.05])
    assert only(found).counts.tolist() == [0, 3, 1, 1, 3, 1]
    assert only(found).potentials == 9
    assert only(found).spikes == 4
    assert found.firing_rate == 4 / 9
    assert only(found).near == 5  # .9375, 1.09375 and the three ties; .625 is .375 away
    assert found.near_threshold == 5 / 9
    assert found.samples == 3


def test_potentials_at_the_threshold_count_as_firing_and_outliers_are_kept():
    found = membrane_histogram(Steps(IF(v_th=0.125), T=1), pixels(0.125, 0.12499999, 1.0))
    assert (at(found, 0.0), at(found, -1e-9), at(found, 7.0)) == (1, 1, 1)  # 1 / 0.125 - 1 = 7
    assert found.edges[-2:].tolist() == [4.0, math.inf]
    assert only(found).spikes == 2
    counts = only(found).counts
    threshold = np.searchsorted(found.edges, 0.0)
    assert counts[threshold:].sum() == 2  # the bins from the threshold on are the spikes
    assert default_edges()[81] == 0 and len(default_edges()) == 163


@pytest.mark.parametrize("width", [0.25, 0.5])
def test_surrogate_share_counts_the_potentials_inside_its_width(width):
    """Distances from the threshold: 7/16, 5/16, 3/16, 1/16; a triangle is > 0 inside its width."""
    model = Steps(IF(surrogate=Triangular(width)), T=1)
    found = membrane_histogram(model, pixels(9 / 16, 11 / 16, 13 / 16, 15 / 16))
    assert found.surrogate_active == {0.25: 0.5, 0.5: 1.0}[width]
    assert found.near_threshold == 0.5


def test_shares_are_in_units_of_the_threshold():
    near = membrane_histogram(Steps(IF(v_th=0.5), T=1), pixels(0.4375, 0.375))  # x = -1/8, -1/4
    assert near.near_threshold == 0.5


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_noise_is_counted_and_depends_neither_on_the_batch_size_nor_on_earlier_calls(batch_size):
    """Far below threshold v = I + sigma xi, so that erf gives the shares of a Gaussian."""
    model = Steps(NoisyLIF(decay=0.5, sigma=0.25, v_th=8.0), T=1)
    data = torch.full((7, 1, 20, 20), 0.5), torch.zeros(7, dtype=torch.int64)
    found = membrane_histogram(model, data, bins=[-0.9375], batch_size=batch_size, seed=3)
    again = membrane_histogram(model, data, bins=[-0.9375], batch_size=7, seed=3)
    other = membrane_histogram(model, data, bins=[-0.9375], batch_size=7, seed=4)
    assert only(found).counts.tolist() == only(again).counts.tolist()
    assert only(found).counts.tolist() != only(other).counts.tolist()
    assert only(found).counts.tolist() == pytest.approx([1400, 1400], abs=4 * math.sqrt(700))


def test_pooled_layers_add_up_and_the_limit_holds():
    model = MLP(in_features=16, hidden=[5, 3], in_shape=[1, 4, 4], T=2)
    x = torch.rand(9, 1, 4, 4, generator=stream(0, "x"))
    found = membrane_histogram(model, (x, torch.zeros(9, dtype=torch.int64)), limit=4, batch_size=3)
    assert list(found.layers) == ["classifier.2", "classifier.4"]
    assert [row.potentials for row in found.layers.values()] == [4 * 2 * 5, 4 * 2 * 3]
    pooled = found.pooled
    assert pooled.potentials == 64
    assert pooled.near == sum(row.near for row in found.layers.values())
    assert pooled.counts.tolist() == sum(row.counts for row in found.layers.values()).tolist()
    assert found.samples == 4
    assert membrane_histogram(model, (x, torch.zeros(9).long()), limit=None).samples == 9


def test_model_is_left_as_it_was():
    model = MLP(in_features=4, hidden=[3], in_shape=[1, 2, 2])
    model.train()
    model.classifier[2].eval()
    before = {name: m.training for name, m in model.named_modules()}
    state = torch.random.get_rng_state()
    data = torch.rand(3, 1, 2, 2, generator=stream(1, "x")), torch.zeros(3, dtype=torch.int64)
    membrane_histogram(model, data)
    assert {name: m.training for name, m in model.named_modules()} == before
    assert not model.classifier[2]._recorders
    assert torch.equal(torch.random.get_rng_state(), state)


def test_file_gives_back_what_was_saved(tmp_path):
    found = membrane_histogram(Steps(LIF(), T=2), pixels(0.25, 0.75, 1.0))
    found.save(tmp_path / "analysis" / "membrane.npz")
    assert [p.name for p in (tmp_path / "analysis").iterdir()] == ["membrane.npz"]
    loaded = MembraneHistogram.load(tmp_path / "analysis" / "membrane.npz")
    assert list(loaded.layers) == list(found.layers)
    assert loaded.edges.tolist() == found.edges.tolist()
    assert loaded.samples == 3
    one, two = only(loaded), only(found)
    assert one.counts.tolist() == two.counts.tolist()
    assert (one.near, one.active, one.spikes) == (two.near, two.active, two.spikes)


@pytest.mark.parametrize("damage", ["truncated", "other", "text"])
def test_damaged_file_is_rejected_by_name(damage, tmp_path):
    path = tmp_path / "membrane.npz"
    membrane_histogram(Steps(LIF(), T=2), pixels(0.25)).save(path)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    elif damage == "other":
        np.savez(path, edges=np.zeros(3))
    else:
        path.write_text("no archive")
    with pytest.raises(ValueError, match=r"membrane\.npz: no membrane histogram") as caught:
        MembraneHistogram.load(path)
    assert "\n" not in str(caught.value)


def test_mistakes_are_rejected():
    x = pixels(0.5)
    with pytest.raises(ValueError, match="no spiking layer"):
        membrane_histogram(nn.Flatten(), x)
    with pytest.raises(ValueError, match="must be >= 1, got 0 and 64"):
        membrane_histogram(Steps(LIF(), T=1), x, limit=0)
    for bins in ([0, 0], [1, 0], [math.nan], [], [[0.0]], [-math.inf, math.inf]):
        with pytest.raises(ValueError, match="bins"):
            membrane_histogram(Steps(LIF(), T=1), x, bins=bins)


def test_nan_potential_is_rejected_by_layer():
    model = MLP(in_features=4, hidden=[3], in_shape=[1, 2, 2])
    with torch.no_grad():
        model.classifier[1].weight[0, 0] = math.nan
    data = torch.rand(2, 1, 2, 2, generator=stream(1, "x")), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"layer 'classifier\.2' has a potential that is NaN"):
        membrane_histogram(model, data)

"""Regions on a line: one-neuron networks with a known number, and lines that need more points."""

import math

import pytest
import torch
from torch import nn

from spikeguard.analysis import count_regions, crossings
from spikeguard.neurons import IF, NoisyLIF
from tests.toys.known_gradients import Neurons, random_thresholds


def one(T=1, neuron=None):
    neuron = IF(v_th=1.0) if neuron is None else neuron
    return Neurons(neuron, T, torch.ones(1), torch.zeros(1))


LOW, HIGH = torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1.3)


@pytest.mark.parametrize(("T", "regions"), [(1, 2), (2, 3), (3, 4), (5, 6)])
def test_one_neuron_without_leak_has_one_region_for_each_first_spike_time(T, regions):
    """With hard reset the pattern depends on ceil(1 / current): 1, 2, ..., T, or no spike."""
    found = count_regions(one(T), LOW, HIGH)
    assert (found.changes + 1, found.converged) == (regions, True)
    assert found.layers == {"neuron": regions - 1}
    assert found.regions == pytest.approx(regions, rel=0.05)
    back = count_regions(one(T), HIGH, LOW)
    assert back.changes == found.changes


def test_a_line_inside_one_region_and_one_that_touches_the_threshold():
    assert count_regions(one(), LOW, LOW + 0.9).regions == 1
    assert count_regions(one(), LOW, LOW + 1.0).changes == 1  # it fires at the threshold
    assert count_regions(one(), LOW, LOW).changes == 0


def test_many_boundaries_are_estimated_from_fewer_points():
    found = count_regions(random_thresholds(1000), LOW, LOW + 1, most=4096)
    assert found.converged and found.intervals < 4096
    assert found.changes + 1 < 900  # what a plain count on this grid gives
    # boundaries of one realisation scatter: a Poisson count has a deviation of 32
    assert found.regions == pytest.approx(1001, abs=100)


def test_too_few_points_are_said():
    found = count_regions(random_thresholds(5000), LOW, LOW + 1, first=64, most=128)
    assert (found.intervals, found.converged, found.moved) == (128, False, math.inf)
    assert found.regions == math.inf and found.changes == 128


def test_the_noise_is_the_same_at_every_point():
    """Noise of its own at every point would cross the threshold many times near 1."""
    noisy = one(neuron=NoisyLIF(1.0, 0.05, v_th=1.0))
    crossed = [count_regions(noisy, LOW, HIGH, sample=k, seed=7).changes for k in range(5)]
    assert crossed == [1] * 5
    again = count_regions(noisy, LOW, HIGH, sample=3, seed=7)
    assert again == count_regions(noisy, LOW, HIGH, sample=3, seed=7)


def test_crossings_inverts_the_expected_number_of_empty_intervals():
    assert crossings(0, 64) == 0
    assert crossings(64, 64) == math.inf
    expected = 10_000 * (1 - math.exp(-2.5))  # intervals that 25,000 boundaries hit
    assert crossings(round(expected), 10_000) == pytest.approx(25_000, rel=1e-3)


def test_the_model_is_unchanged_and_mistakes_are_rejected():
    model = one()
    assert model.training
    count_regions(model, LOW, HIGH)
    assert model.training and not model.neuron._recorders
    for wrong in ({"first": 0}, {"first": 64, "most": 100}, {"tolerance": -1}):
        with pytest.raises(ValueError, match="count_regions: needs first >= 1"):
            count_regions(model, LOW, HIGH, **wrong)
    with pytest.raises(ValueError, match="no spiking layer"):
        count_regions(nn.Flatten(), LOW, HIGH)

"""Intervals over images: known cases, and images rather than neurons as the units."""

import numpy as np
import pytest
import torch

from spikeguard.analysis.image_intervals import change_of_share, share_of
from spikeguard.rng import stream
from spikeguard.system.intervals import wilson


def coins(n, p, seed=0):
    return (torch.rand(n, generator=stream(seed, "coins")) < p).double().numpy()


def test_equal_images_leave_no_doubt():
    found = share_of([[3, 1]] * 5, [[10, 2]] * 5)
    np.testing.assert_allclose(found, [[0.3, 0.5]] * 3)


def test_an_interval_of_one_neuron_an_image_is_close_to_wilson():
    part = coins(400, 0.3)
    found = share_of(part, np.ones(400))
    assert found.value == part.mean()
    np.testing.assert_allclose([found.low, found.high], wilson(part.sum(), 400), atol=0.012)


def test_equal_neurons_of_an_image_count_once():
    """A hundred copies of every neuron are no more knowledge; neurons as units would be."""
    part = coins(400, 0.3)
    once, copied = share_of(part, np.ones(400)), share_of(100 * part, np.full(400, 100))
    np.testing.assert_allclose(copied, once)
    low, high = wilson(100 * part.sum(), 40_000)
    assert (copied.high - copied.low) > 8 * (high - low)


def test_a_share_of_sums_is_not_the_mean_of_shares():
    found = share_of([1, 0], [1, 3])
    assert found.value == 0.25
    assert (found.low, found.high) == (0, 1)  # either image alone


@pytest.mark.parametrize(("part", "share"), [(0, 0.0), (2, 1.0)])
def test_none_and_all_have_an_interval_of_images(part, share):
    found = share_of(np.full(50, part), np.full(50, 2))
    assert found.value == share
    assert (found.low, found.high) == wilson(50 * share, 50)


def test_one_image_has_a_wide_interval():
    found = share_of([[40]], [[100]])
    assert (found.low[0], found.high[0]) == wilson(0.4, 1)
    assert found.low[0] < 0.1 and found.high[0] > 0.8


def test_nothing_to_divide_by_is_no_number():
    found = share_of([[0, 1]] * 3, [[0, 2]] * 3)
    np.testing.assert_array_equal(np.isnan(found), [[True, False]] * 3)


def test_half_of_everything_is_a_change_of_minus_half_without_doubt():
    """The images vary, but they are the same for both networks."""
    first = 10 + 90 * coins(60, 0.5)
    np.testing.assert_allclose(change_of_share(first / 2, 1000, first, 1000), [-0.5] * 3)
    other = 10 + 90 * coins(60, 0.5, seed=1)
    found = change_of_share(other, 1000, first, 1000)
    assert found.low < found.value < found.high


def test_a_change_from_nothing_or_of_one_image_has_no_interval():
    assert np.isnan(change_of_share([1, 1], 2, [0, 0], 2)).all()
    found = change_of_share([1], 4, [2], 4)
    assert (found.value, np.isnan(found.low), np.isnan(found.high)) == (-0.5, True, True)


def test_same_seed_same_bits():
    part = coins(30, 0.4)
    assert share_of(part, 1, seed=3) == share_of(part, 1, seed=3)
    assert share_of(part, 1, seed=3) != share_of(part, 1, seed=4)


def test_no_image_is_rejected():
    with pytest.raises(ValueError, match="at least one image"):
        share_of([], [])

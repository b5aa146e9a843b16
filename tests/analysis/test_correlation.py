"""Correlations of spike trains with known answers, and the statistics of their matrix."""

import doctest
from itertools import permutations

import numpy as np
import pytest
import torch

from spikeguard.analysis import correlation
from spikeguard.analysis.correlation import MeanCorrelation, correlations, moments, shuffled
from spikeguard.rng import SampleStreams, stream


def random_trains(n, T, neurons, rate=0.4):
    return (torch.rand(n, T, neurons, generator=stream(0, "trains")) < rate).float()


def mean_of(trains):
    found = MeanCorrelation()
    found.add(trains)
    return found


def test_example_in_the_docstring():
    assert doctest.testmod(correlation).failed == 0


def test_identical_opposite_and_constant_trains():
    a, b = [1, 0, 0, 1], [0, 1, 1, 0]
    found = correlations(torch.tensor([a, a, b, [1, 1, 1, 1], [0, 0, 0, 0]]).T)
    expected = torch.full((5, 5), torch.nan, dtype=torch.float64)
    expected[:3, :3] = torch.tensor([[1, 1, -1], [1, 1, -1], [-1, -1, 1]])
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_correlations_are_those_of_numpy():
    trains = random_trains(1, 12, 7)[0]
    found = correlations(trains).numpy()
    np.testing.assert_allclose(found, np.corrcoef(trains.numpy().T), atol=1e-12)


def test_shuffling_keeps_every_rate_and_correlates_nothing():
    """Ten copies of one train correlate 1; shuffled ones 0 within four standard errors."""
    trains = random_trains(400, 10, 1).expand(400, 10, 10)
    trains = trains[trains.std(1)[:, 0] > 0]
    again = shuffled(trains, SampleStreams(0, range(len(trains))))
    assert torch.equal(again.sum(1), trains.sum(1)) and not torch.equal(again, trains)
    assert mean_of(trains).per_image()[:, 0] == pytest.approx(1)
    each = mean_of(again).per_image()[:, 0]
    assert each.mean() == pytest.approx(0, abs=4 * each.std() / len(each) ** 0.5)
    assert 0 < each.std() < 0.1


def test_the_expected_correlation_of_shuffled_trains_is_exactly_zero():
    a = torch.tensor([1.0, 1, 0, 0, 0])
    every = [correlations(torch.stack([a, a[list(p)]], 1))[0, 1] for p in permutations(range(5))]
    assert float(sum(every)) == pytest.approx(0, abs=1e-12)


def test_shuffling_draws_one_stream_an_image_and_every_order_is_as_likely():
    trains = torch.eye(3).expand(3000, 3, 3)
    again = shuffled(trains, SampleStreams(5, range(3000)))
    assert torch.equal(again[7:9], shuffled(trains[:2], SampleStreams(5, [7, 8])))
    shares = again.mean(0).flatten().tolist()
    assert shares == pytest.approx([1 / 3] * 9, abs=4 * (2 / 9 / 3000) ** 0.5)


def test_the_two_conventions_for_an_undefined_pair():
    """In the first image r = 1; in the second one a train is constant."""
    trains = torch.tensor([[[1, 1], [0, 0]], [[1, 0], [0, 0]]]).float()
    found = mean_of(trains).matrix()
    np.testing.assert_allclose(found["left out"], [[1, 1], [1, 1]])
    np.testing.assert_allclose(found["zero"], [[1, 0.5], [0.5, 0.5]])
    np.testing.assert_allclose(mean_of(trains).per_image(), [[1, 1, 0], [np.nan, 0, 1]])


def test_a_pair_that_is_never_defined_is_nan_or_zero():
    found = mean_of(torch.tensor([[[1, 1], [0, 1]]]).float()).matrix()
    np.testing.assert_allclose(found["left out"], [[1, np.nan], [np.nan, np.nan]])
    np.testing.assert_allclose(found["zero"], [[1, 0], [0, 0]])


def test_the_mean_is_the_mean_of_the_matrices_of_all_images():
    trains = random_trains(90, 4, 6, 0.1)
    each = np.stack([correlations(image).numpy() for image in trains])
    found = mean_of(trains)
    np.testing.assert_allclose(found.matrix()["left out"], np.nanmean(each, 0), atol=1e-12)
    np.testing.assert_allclose(found.matrix()["zero"], np.nan_to_num(each).mean(0), atol=1e-12)
    pairs = each[:, ~np.eye(6, dtype=bool)]
    missing = np.isnan(pairs).mean(1)
    means = found.per_image()
    np.testing.assert_allclose(means[:, 1], np.nan_to_num(pairs).mean(1), atol=1e-12)
    np.testing.assert_allclose(means[:, 2], missing)
    some = missing < 1
    assert 0 < some.sum() < 90
    np.testing.assert_allclose(means[some, 0], np.nanmean(pairs[some], 1), atol=1e-12)
    assert np.isnan(means[~some, 0]).all()


@pytest.mark.parametrize("size", [1, 7, 64, 200])
def test_batches_change_no_bit(size):
    trains = random_trains(150, 5, 8)
    found = MeanCorrelation()
    for batch in trains.split(size):
        found.add(batch)
    for name, matrix in mean_of(trains).matrix().items():
        np.testing.assert_array_equal(found.matrix()[name], matrix)
    np.testing.assert_array_equal(found.per_image(), mean_of(trains).per_image())


def test_no_image_gives_empty_results():
    found = MeanCorrelation()
    found.add(torch.zeros(0, 4, 3))
    assert found.per_image().shape == (0, 3) and found.matrix()["zero"].shape == (0, 0)


@pytest.mark.parametrize("ones", [1, 30, 50, 95])
def test_skewness_and_kurtosis_of_a_share_of_ones(ones):
    """Bernoulli(p): skewness (1 - 2p) / sqrt(pq), kurtosis (1 - 6pq) / (pq)."""
    p, q = ones / 100, 1 - ones / 100
    found = moments(np.array([1.0] * ones + [0.0] * (100 - ones)))
    assert found.skewness == pytest.approx((1 - 2 * p) / (p * q) ** 0.5, abs=1e-9)
    assert found.kurtosis == pytest.approx((1 - 6 * p * q) / (p * q))
    assert (found.above, found.values) == (ones, 100)


def test_moments_of_a_normal_sample_percentile_and_count():
    sample = torch.randn(100_000, generator=stream(0, "n"), dtype=torch.float64).numpy()
    found = moments(sample)
    assert found.skewness == pytest.approx(0, abs=4 * (6 / 1e5) ** 0.5)
    assert found.kurtosis == pytest.approx(0, abs=4 * (24 / 1e5) ** 0.5)
    assert moments(np.arange(101.0)).p99 == 99
    assert moments(np.array([0.9, 0.9000001, 1.0, -1.0])).above == 2


def test_moments_without_values_or_spread_are_undefined():
    for values in ([], [0.5] * 4):
        found = moments(np.array(values))
        assert np.isnan(found.skewness) and np.isnan(found.kurtosis)
    assert np.isnan(moments(np.array([])).p99) and moments(np.array([0.5])).p99 == 0.5

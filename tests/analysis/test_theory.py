"""Quantities of theorems: closed forms, limits, and brute force where the answer is known."""

import math

import pytest
import torch

from spikeguard.analysis import (
    flip_probability,
    peak_noise,
    perturbation_bound,
    perturbation_gain,
    shift_flip_probability,
    vulnerability_bound,
    vulnerability_ratio,
)
from spikeguard.defences.mppd import perturbation_dynamics
from spikeguard.rng import stream


def at(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_flips_by_the_rule_of_68_95_and_99_7_per_cent():
    """Outside one, two and three standard deviations on one side: (1 - erf(k / sqrt 2)) / 2."""
    exact = [(1 - math.erf(k / math.sqrt(2))) / 2 for k in (0, 1, 2, 3)]
    assert flip_probability(at(0, 0.5, 1, 1.5), 0.5).tolist() == pytest.approx(exact)
    assert flip_probability(at(0, -0.5, -1, -1.5), 0.5).tolist() == pytest.approx(exact)
    assert float(flip_probability(at(10), 1.0)) == pytest.approx(7.6e-24, rel=0.01)
    assert flip_probability(torch.zeros(2, 3), 1.0).tolist() == [[0.5] * 3] * 2


def test_flips_are_counted_with_the_noise_of_a_layer():
    noise = torch.randn(200_000, generator=stream(0, "noise"), dtype=torch.float64) * 0.3
    for distance in (-0.4, -0.1, 0.2):
        p = float(flip_probability(at(distance), 0.3))
        counted = float(((distance + noise >= 0) != (distance >= 0)).double().mean())
        assert counted == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / len(noise)))


def test_a_shift_across_the_threshold_without_noise_changes_the_spike_for_certain():
    """A potential at the threshold fires."""
    distance = at(-0.2, -0.1, -0.05, 0.0, 0.1)
    assert shift_flip_probability(distance, 0.1, 0.0).tolist() == [0, 1, 1, 0, 0]
    assert shift_flip_probability(distance, -0.1, 0.0).tolist() == [0, 0, 0, 1, 0]
    tiny = shift_flip_probability(distance[[0, 2, 4]], 0.1, 1e-3)  # no tie: the limit
    assert tiny.tolist() == pytest.approx([0, 1, 0])


def test_a_shift_has_the_probability_between_two_quantiles():
    one_sided = math.erf(1 / math.sqrt(2)) / 2  # of 0 to one standard deviation
    assert float(shift_flip_probability(at(0.0), 0.7, 0.7)) == pytest.approx(one_sided)
    assert float(shift_flip_probability(at(0.7), -1.4, 0.7)) == pytest.approx(2 * one_sided)


def test_a_shift_far_from_the_threshold_keeps_its_digits():
    """Above the threshold both values of Phi round to 1; by symmetry it is the same as below."""
    above = shift_flip_probability(at(10.0), 1.0, 1.0)
    assert float(above) == float(shift_flip_probability(at(-10.0), -1.0, 1.0)) > 0
    assert float(above) == pytest.approx(7.6e-24, rel=0.01)  # Phi(-10) - Phi(-11)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_over_all_distances_noise_changes_nothing(sigma):
    grid = torch.linspace(-20, 20, 400_001, dtype=torch.float64)
    total = torch.trapezoid(shift_flip_probability(grid, -0.3, sigma), grid)
    assert float(total) == pytest.approx(0.3, abs=1e-9)


@pytest.mark.parametrize("distance", [-2.0, -0.5, -0.11, 0.2, 1.0])
def test_the_peak_noise_is_where_a_fine_grid_has_its_largest_probability(distance):
    grid = [n / 500 for n in range(1, 1500)]
    found = max(grid, key=lambda s: float(shift_flip_probability(at(distance), 0.1, s)))
    assert float(peak_noise(at(distance), 0.1)) == pytest.approx(found, abs=2e-3)


def test_the_peak_noise_is_0_across_the_threshold_and_the_distance_for_a_small_shift():
    assert peak_noise(at(-0.05, 0.0, -0.1), 0.1).tolist() == [0, 0, 0]
    assert peak_noise(at(-0.6, 0.6, 2.0), 1e-9).tolist() == pytest.approx([0.6, 0.6, 2.0])
    assert peak_noise(at(-0.6, 0.6), 0.0).tolist() == [0.6, 0.6]


@pytest.mark.parametrize("distance", [0.3, 0.9])
def test_the_published_condition_is_the_sign_of_the_slope_for_a_small_shift(distance):
    """TGO Eq. 17 at sigma 0.6: the slope in sigma has the sign of z^2 - 1."""
    low, high = (float(shift_flip_probability(at(distance), 1e-3, s)) for s in (0.599, 0.601))
    z = distance / 0.6
    slope = 1e-3 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / 0.36 * (z * z - 1)
    assert (high - low) / 0.002 == pytest.approx(slope, rel=0.01)


def smallest_angle(decay, T):
    """Return the root of sin((T + 1) x) = decay sin(T x) in (0, pi / (T + 1)), by bisection."""
    low, high = 1e-12, math.pi / (T + 1)
    for _ in range(200):
        middle = (low + high) / 2
        if math.sin((T + 1) * middle) > decay * math.sin(T * middle):
            low = middle
        else:
            high = middle
    return low


@pytest.mark.parametrize("T", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("decay", [0.0, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_the_gain_is_that_of_a_tridiagonal_matrix(decay, T):
    smallest = 1 + decay**2 - 2 * decay * math.cos(smallest_angle(decay, T))
    assert perturbation_gain(decay, T) == pytest.approx(1 / math.sqrt(smallest))
    assert perturbation_gain(decay, T) <= perturbation_bound(decay, T) + 1e-12


def test_gains_in_closed_form():
    assert perturbation_gain(0.3, 1) == 1
    assert perturbation_gain(0.5, 2) == pytest.approx((0.5 + math.sqrt(4.25)) / 2)
    assert perturbation_gain(1.0, 7) == pytest.approx(1 / (2 * math.sin(math.pi / 30)))
    assert perturbation_gain(0.5, 3, 4.0) == pytest.approx(4 * perturbation_gain(0.5, 3))
    assert perturbation_bound(0.5, 3, 2.0) == 3.5
    assert perturbation_bound(1.0, 6) == 6
    assert perturbation_bound(0.0, 6) == 1


def test_the_printed_bound_does_not_hold_and_the_corrected_one_does():
    """stable-SNN Theorem 3.1 at decay 0.5, T = 3; its own setting, 0.99 and 8, is inside."""
    assert perturbation_gain(0.5, 3) == pytest.approx(1.467, abs=5e-4)
    assert perturbation_gain(0.5, 3) > math.sqrt(2)
    eps = perturbation_dynamics(torch.ones(3, dtype=torch.float64), 0.5)
    assert float(eps.norm()) / math.sqrt(3) > math.sqrt(2)  # three spikes are enough
    assert perturbation_gain(0.99, 8) < math.sqrt(100)
    assert perturbation_gain(0.9, 400) == pytest.approx(10, rel=5e-3)  # no smaller constant


def test_the_ratio_of_a_constant_gradient_is_its_bound_and_of_one_entry_is_3():
    gradient = torch.zeros(3, 1, 4, 4)
    gradient[0] = 1e-30  # the squares of such gradients underflow in single precision
    gradient[1, 0, 2, 2] = -5
    gradient[2, 0, 0] = torch.tensor([3.0, 4.0, 0.0, 0.0])  # 3 * 49 / 25
    assert vulnerability_ratio(gradient).tolist() == pytest.approx([48, 3, 3 * 49 / 25])
    assert vulnerability_bound(gradient).tolist() == [48, 3, 6]


def test_a_gradient_of_zeros_has_no_ratio():
    assert vulnerability_ratio(torch.zeros(2, 5)).isnan().all()
    assert vulnerability_bound(torch.zeros(2, 5)).tolist() == [0, 0]


def test_the_ratio_is_that_of_a_linear_function_over_a_cube():
    g = at(1.0, -2.0, 0.5)
    draws = 2 * torch.rand(400_000, 3, generator=stream(0, "cube"), dtype=torch.float64) - 1
    changes = (draws @ g).square()
    largest = float(g.abs().sum().square())
    error = largest * float(changes.std() / changes.mean() ** 2) / math.sqrt(len(draws))
    ratio = float(vulnerability_ratio(g[None]))
    assert largest / float(changes.mean()) == pytest.approx(ratio, abs=4 * error)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flip_probability(at(0.1), 0.0), "sigma must be a number > 0, got 0"),
        (lambda: flip_probability(at(0.1), math.nan), "sigma must be a number > 0, got nan"),
        (lambda: shift_flip_probability(at(0.1), 0.1, -1.0), "sigma must be a number >= 0, got -1"),
        (lambda: perturbation_gain(1.5, 3), "decay is a factor in"),
        (lambda: perturbation_gain(math.nan, 3), "decay is a factor in"),
        (lambda: perturbation_bound(0.5, 0), "T must be >= 1, got 0"),
        (lambda: perturbation_bound(0.5, 3, -1.0), "weight_norm must be a number >= 0, got -1"),
    ],
)
def test_bad_arguments_are_rejected(call, message):
    with pytest.raises(ValueError, match=message):
        call()

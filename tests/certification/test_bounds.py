"""Bounds of randomised smoothing: closed forms, exact coverage, and balls searched exhaustively."""

import math
from itertools import product
from statistics import NormalDist

import pytest
import torch

from spikeguard.certification.bounds import (
    GaussianCertificate,
    RateCertificate,
    clopper_pearson,
    least_draws,
    outvotes,
)
from spikeguard.rng import stream

GRID = 2.0**-24


# ------------------------------------------------------------------ the confidence bound


@pytest.mark.parametrize("n", [1, 2, 10, 1000])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.4])
def test_bounds_with_a_closed_form(n, alpha):
    """All of n: p^n = alpha. At least one: 1 - (1 - p)^n = alpha. None: 0."""
    assert clopper_pearson(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-12)
    assert clopper_pearson(1, n, alpha) == pytest.approx(1 - (1 - alpha) ** (1 / n), rel=1e-9)
    assert clopper_pearson(0, n, alpha) == 0


def test_bounds_of_many_draws_approach_the_share():
    """The normal interval of 99.9 % is p - 3.09 sqrt(p (1 - p) / n), up to O(1 / n)."""
    for n in (10_000, 100_000):
        expected = 0.7 - 3.0902 * math.sqrt(0.7 * 0.3 / n)
        assert clopper_pearson(7 * n // 10, n, 0.001) == pytest.approx(expected, abs=10 / n)


def errors(bound, n, p, alpha):
    """The exact probability that a bound is above the p that the count was drawn with."""
    return sum(
        math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if bound(k, n, alpha) > p
    )


def test_the_bound_errs_with_alpha_at_most_and_the_share_itself_is_caught():
    n, alpha, grid = 40, 0.05, [k / 20 for k in range(1, 20)]
    exact = [errors(clopper_pearson, n, p, alpha) for p in grid]
    assert max(exact) <= alpha and max(exact) > alpha / 3  # and it is not needlessly low
    planted = [errors(lambda k, n, alpha: k / n, n, p, alpha) for p in grid]
    assert min(planted) > 0.3


@pytest.mark.parametrize("alpha", [0.5, 0.05, 0.001, 1e-6, 0.125])
def test_the_least_number_of_draws_is_the_first_that_certifies(alpha):
    n = least_draws(alpha)
    assert clopper_pearson(n, n, alpha) > 0.5
    assert n == 1 or clopper_pearson(n - 1, n - 1, alpha) <= 0.5


def test_the_test_of_two_classes_is_that_of_a_fair_coin():
    """Ten to none has 2 / 2^10; nine to one 22 / 2^10."""
    assert outvotes(10, 0, 2.1 / 1024) and not outvotes(10, 0, 1.9 / 1024)
    assert outvotes(9, 1, 22.1 / 1024) and not outvotes(9, 1, 21.9 / 1024)


# ------------------------------------------------------------------------- Gaussian noise


def test_gaussian_radius_at_known_quantiles():
    assert GaussianCertificate(0.5).radius(0.975) == pytest.approx(0.5 * 1.959964, rel=1e-6)
    assert GaussianCertificate(0.5).radius(0.5) == GaussianCertificate(0.5).radius(0.2) == 0
    assert GaussianCertificate(1.0, copies=4).radius(0.975) == pytest.approx(1.959964 / 2, rel=1e-6)
    assert GaussianCertificate(1.0).radius(1.0) < math.inf
    assert (GaussianCertificate(0.5).sigma, GaussianCertificate(0.5, own=True).sigma) == (0.5, 0)


@pytest.mark.parametrize("copies", [1, 3])
def test_gaussian_radius_is_that_of_a_half_space(copies):
    """f = 1 beyond a plane at distance d: p = Phi(d sqrt(T) / sigma), and g changes at d."""
    sigma = 0.3
    for distance in (0.01, 0.1, 0.4):
        p = NormalDist().cdf(distance * math.sqrt(copies) / sigma)
        radius = GaussianCertificate(sigma, copies).radius(p)
        assert radius == pytest.approx(distance, rel=1e-9)


# ---------------------------------------------------------------------------- rate coding


def test_rate_radius_by_hand():
    """T = 1: p - 1/2. T = 2 and p = 1: 1 - sqrt(1/2). Each less the grid of the draws."""
    assert RateCertificate(1, 9).radius(0.8) == pytest.approx(0.3 - 9 * GRID, abs=1e-15)
    assert RateCertificate(2, 9).radius(1.0) == pytest.approx(1 - 0.5**0.5 - 9 * GRID, abs=1e-15)
    half = RateCertificate(2, 9, signed=True).radius(1.0)
    assert half == pytest.approx((1 - 0.5**0.5 - 9 * GRID) / 2, abs=1e-15)
    assert RateCertificate(2, 9).radius(0.5) == 0
    assert RateCertificate(1, 2**24).radius(0.6) == 0  # the grid is coarser than the ball


def one(rates, codes):
    """P(class 1) where the codes in the set ``codes`` [2^(d T)] have it; rates [..., d T]."""
    bits = torch.tensor(list(product((0, 1), repeat=rates.shape[-1])))[codes]
    rates = rates.unsqueeze(-2)
    return torch.where(bits == 1, rates, 1 - rates).prod(-1).sum(-1)


def ball(x, radius, steps=12):
    """Points of [0, 1]^2 in the L1 ball, on a grid, its corners along the axes included."""
    along = torch.linspace(-radius, radius, 2 * steps + 1, dtype=torch.float64)
    delta = torch.cartesian_prod(along, along)
    inside = delta[delta.abs().sum(1) <= radius + 1e-12]
    return (x + inside).clamp(0, 1)


def lost(x, codes, T, radius_of):
    """Whether the class of g at x, of probability p, is lost inside the ball of radius_of(p)."""
    own = float(one(x.repeat(T), codes))
    p = max(own, 1 - own)
    radius = radius_of(p)
    if radius == 0:
        return False
    ahead = one(ball(x, radius * (1 - 1e-9)).repeat(1, T), codes)
    return bool(((ahead < 0.5) if own > 0.5 else (ahead > 0.5)).any())


def cases():
    """Random classifiers of the spikes of two pixels, and images near the corners of the box."""
    generator = stream(0, "codes")
    for T in (1, 2, 3):
        for _ in range(40):
            codes = torch.rand(4**T, generator=generator) < 0.5
            x = torch.rand(2, generator=generator, dtype=torch.float64) ** 3
            yield T, codes, x
        any_spike = torch.ones(4**T, dtype=torch.bool)
        any_spike[0] = False
        yield T, any_spike, torch.zeros(2, dtype=torch.float64)


def test_no_image_in_the_ball_of_rate_coding_has_another_class():
    assert not any(lost(x, codes, T, RateCertificate(T, 2).radius) for T, codes, x in cases())


def test_the_published_radius_that_ignores_t_is_caught_and_the_ball_is_tight():
    """One spike in T steps decides. At x = 0, p = 1, and P(no spike) = (1 - r)^T."""

    def published(p):
        return p - 0.5

    failed = {T for T, codes, x in cases() if lost(x, codes, T, published)}
    assert failed == {2, 3}
    for T in (1, 2, 3):
        radius = RateCertificate(T, 0).radius(1.0)
        assert (1 - radius) ** T == pytest.approx(0.5)
        _, any_spike, x = list(cases())[41 * T - 1]
        assert lost(x, any_spike, T, lambda p, r=radius: 1.01 * r)


def test_signed_coding_moves_twice_as_fast():
    """At x = 1/2 nothing is emitted; a pixel that moves by r fires with 2 r in each step."""
    for T in (1, 4):
        radius = RateCertificate(T, 0, signed=True).radius(1.0)
        assert (1 - 2 * radius) ** T == pytest.approx(0.5)

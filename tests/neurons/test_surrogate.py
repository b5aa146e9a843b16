"""Surrogates: area, half-width, closed-form values, and the contract of ``widened``."""

import math

import pytest
import torch

from spikeguard.neurons import (
    SURROGATES,
    ATan,
    Gaussian,
    Rectangular,
    Sigmoid,
    StraightThrough,
    SuperSpike,
    Surrogate,
    Triangular,
)

SHARP = {  # each family at its default and at another parameter
    "triangular": [Triangular(), Triangular(0.3)],
    "rectangular": [Rectangular(), Rectangular(2.0)],
    "atan": [ATan(), ATan(5.0)],
    "sigmoid": [Sigmoid(), Sigmoid(1.5)],
    "gaussian": [Gaussian(), Gaussian(0.2)],
    "superspike": [SuperSpike(), SuperSpike(10.0)],
}
ALL = [surrogate for family in SHARP.values() for surrogate in family]
COMPACT = (Triangular, Rectangular)


def h(surrogate, *x):
    return surrogate(torch.tensor(x, dtype=torch.float64)).tolist()


def test_every_surrogate_is_tested():
    assert {*SHARP, "straight_through"} == set(SURROGATES)
    assert {name: type(family[0]) for name, family in SHARP.items()} == {
        name: cls for name, cls in SURROGATES.items() if cls is not StraightThrough
    }
    assert all(isinstance(cls(), Surrogate) for cls in SURROGATES.values())


@pytest.mark.parametrize("surrogate", ALL, ids=repr)
def test_area_is_one(surrogate):
    """Midpoint rule after x = tan(a), which maps the line to a bounded interval: no tail is cut."""
    n = 200_000
    a = (torch.arange(n, dtype=torch.float64) + 0.5) / n * math.pi - math.pi / 2
    x = a.tan()
    area = (surrogate(x) * (1 + x.square())).sum() * math.pi / n
    assert area.item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("surrogate", ALL, ids=repr)
def test_half_width_is_where_h_vanishes_or_halves(surrogate):
    w = surrogate.half_width
    peak, inside, at, outside = h(surrogate, 0, w * (1 - 1e-9), w, w * (1 + 1e-9))
    if isinstance(surrogate, COMPACT):
        assert inside > 0 and outside == 0
    else:
        assert at == pytest.approx(peak / 2, rel=1e-12)


@pytest.mark.parametrize("surrogate", [*ALL, StraightThrough()], ids=repr)
def test_h_is_even_nonnegative_and_falls_away_from_the_threshold(surrogate):
    x = torch.linspace(0, 6, 601, dtype=torch.float64)
    value = surrogate(x)
    assert (value >= 0).all() and (value.diff() <= 0).all()
    torch.testing.assert_close(surrogate(-x), value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("factor", [0.5, 1, 2.0, 4.0])
@pytest.mark.parametrize("surrogate", ALL, ids=repr)
def test_widened_scales_the_half_width_and_keeps_family_and_area(surrogate, factor):
    """Area 1 and the same shape mean h_wide(x) = h(x / factor) / factor."""
    wide = surrogate.widened(factor)
    assert type(wide) is type(surrogate)
    assert wide.half_width == pytest.approx(factor * surrogate.half_width)
    x = torch.linspace(-4, 4, 101, dtype=torch.float64) + 1e-3
    torch.testing.assert_close(wide(x), surrogate(x / factor) / factor)


def test_straight_through_is_one_everywhere_however_wide():
    wide = StraightThrough().widened(3)
    assert wide == StraightThrough() and wide.half_width == math.inf
    assert h(wide, -100, 0, 7) == [1, 1, 1]


@pytest.mark.parametrize(
    ("surrogate", "x", "value"),
    [
        (Triangular(1.0), [-1, -0.25, 0, 0.5, 1.5], [0, 0.75, 1, 0.5, 0]),
        (Triangular(0.5), [0, 0.25], [2, 1]),
        (Triangular(2.0), [0, 1, 2], [0.5, 0.25, 0]),
        (Rectangular(0.5), [-0.5, 0, 0.5, 0.51], [1, 1, 1, 0]),
        (Rectangular(2.0), [0, 1.9], [0.25, 0.25]),
        (ATan(2.0), [0, 1 / math.pi, 1], [1, 0.5, 1 / (1 + math.pi**2)]),
        (Sigmoid(4.0), [0, math.log(3) / 4], [1, 4 * 3 / 16]),
        (Gaussian(0.5), [0, 0.5], [0.7978845608028654, 0.48394144903828673]),  # 2 phi(0), 2 phi(1)
        (SuperSpike(2.0), [0, 0.5, -1], [1, 1 / 4, 1 / 9]),
    ],
    ids=repr,
)
def test_closed_form_values(surrogate, x, value):
    assert h(surrogate, *x) == pytest.approx(value)


@pytest.mark.parametrize("name", sorted(SHARP))
@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_parameter_that_is_not_positive_is_rejected(name, bad):
    cls = SURROGATES[name]
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: \w+ must be positive, got {bad:g}\.$"):
        cls(bad)


@pytest.mark.parametrize("bad", [0, -2.0, math.nan])
@pytest.mark.parametrize("name", SURROGATES)
def test_a_factor_that_is_not_positive_is_rejected(name, bad):
    with pytest.raises(ValueError, match=r"^widened: factor must be positive"):
        SURROGATES[name]().widened(bad)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_h_keeps_shape_and_precision(name, dtype):
    x = torch.zeros(2, 0, 3, dtype=dtype)
    assert SURROGATES[name]()(x).shape == x.shape and SURROGATES[name]()(x).dtype == dtype

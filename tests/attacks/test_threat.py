"""Threat sets: projections, starts and steepest steps in closed form; batch checks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeguard.attacks import L1, L2, THREATS, Linf, ThreatViolation, describe
from spikeguard.attacks.threat import require_ball_in_box
from spikeguard.rng import SampleStreams, stream
from spikeguard.system.pixel_units import reach

SETS = {"linf": Linf(0.1), "l2": L2(0.7), "l1": L1(0.9)}
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}
SHAPES = [(3, 5), (2, 1, 4, 4), (2, 3, 2, 4, 4)]

every_set = pytest.mark.parametrize("name", sorted(SETS))
quick = settings(max_examples=40, deadline=None)


@st.composite
def pairs(draw):
    """Return x in the box, any x_adv, and a radius."""
    shape = draw(st.sampled_from(SHAPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.rand(shape, generator=generator)
    if draw(st.booleans()):
        x = x.round()  # corners of the box
    spread = draw(st.sampled_from([0.01, 0.3, 5.0]))
    x_adv = x + spread * torch.randn(shape, generator=generator)
    return x, x_adv, draw(st.sampled_from([0.0, 1e-4, 8 / 255, 0.3, 2.0]))


def ball(name, eps):
    return THREATS[name](min(eps, 1.0) if name == "linf" else eps)


@every_set
@quick
@given(pair=pairs())
def test_projection_lands_inside_and_stays(name, pair):
    x, x_adv, eps = pair
    threat = ball(name, eps)
    once = threat.project(x_adv, x)
    threat.check(once, x)
    torch.testing.assert_close(threat.project(once, x), once, rtol=0, atol=3e-7)


@every_set
@quick
@given(pair=pairs())
def test_a_point_of_the_set_is_left_where_it_is(name, pair):
    x, x_adv, eps = pair
    threat = ball(name, eps)
    x_adv = x_adv.clamp(0, 1)
    inside = threat.distance(x_adv, x) <= threat.eps
    projected = threat.project(x_adv, x)
    torch.testing.assert_close(projected[inside], x_adv[inside], rtol=0, atol=3e-7)


@quick
@given(pair=pairs())
def test_linf_projection_is_the_closest_point(pair):
    """Pixel by pixel: the nearest number in [max(x - eps, 0), min(x + eps, 1)]."""
    x, x_adv, eps = pair[0], pair[1], min(pair[2], 1.0)
    x, x_adv = x.double(), x_adv.double()
    low, high = (x - eps).clamp_min(0), (x + eps).clamp_max(1)
    expected = torch.where(x_adv < low, low, torch.where(x_adv > high, high, x_adv))
    assert torch.equal(Linf(eps).project(x_adv, x), expected)


@quick
@given(pair=pairs())
def test_l2_projection_is_the_closest_point_away_from_the_box(pair):
    """On a ball inside the box: x + eps d / ||d||; no point of the ball is nearer."""
    _, far, _ = pair
    x, eps = torch.full_like(far, 0.5).double(), 0.4
    x_adv = far.double()
    projected = L2(eps).project(x_adv, x)
    length = (x_adv - x).flatten(1).norm(dim=1)
    found = (projected - x_adv).flatten(1).norm(dim=1)
    torch.testing.assert_close(found, (length - eps).clamp_min(0), rtol=1e-12, atol=1e-12)


def test_l2_projection_at_the_box_shrinks_first_and_clips_then():
    """x = (0.9, 0.5), delta (0.6, 0.8) eps 0.5: shrunk (0.3, 0.4), clipped to (1.0, 0.9)."""
    x = torch.tensor([[0.9, 0.5]], dtype=torch.float64)
    found = L2(0.5).project(x + torch.tensor([[0.6, 0.8]]), x)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.9]], dtype=torch.float64))


@every_set
@quick
@given(pair=pairs(), seed=st.integers(0, 2**32))
def test_random_starts_are_inside(name, pair, seed):
    x, _, eps = pair
    threat = ball(name, eps)
    threat.check(threat.sample(x, SampleStreams(seed, torch.arange(len(x)))), x)


def test_linf_starts_are_uniform():
    """Mean 0, variance eps^2 / 3, ends at +-eps; five standard errors."""
    x = torch.full((1, 40000), 0.5)
    delta = (Linf(0.3).sample(x, SampleStreams(0, [3])) - x)[0].double()
    assert abs(float(delta.mean())) < 5 * 0.3 / math.sqrt(3 * 40000)
    assert float(delta.var()) == pytest.approx(0.03, rel=0.03)
    assert 0.2999 < float(delta.abs().max()) <= 0.3 + 1e-7


def test_l2_starts_are_uniform_in_the_ball():
    """In d dimensions (r / eps)^d is uniform: its mean is 1/2; and no direction is preferred."""
    x = torch.full((4000, 3), 0.5)
    delta = (L2(0.4).sample(x, SampleStreams(0, torch.arange(4000))) - x).double()
    share = (delta.norm(dim=1) / 0.4) ** 3
    assert float(share.mean()) == pytest.approx(0.5, abs=5 / math.sqrt(12 * 4000))
    assert float(share.var()) == pytest.approx(1 / 12, rel=0.1)
    assert (delta.mean(0).abs() < 5 * 0.4 / math.sqrt(3 * 4000)).all()


@every_set
@pytest.mark.parametrize("shape", SHAPES)
def test_steepest_maximises_the_inner_product(name, shape):
    """The largest <g, d> over the unit ball is the dual norm of g: 1 for Linf, inf for L1."""
    threat = THREATS[name](1.0)
    grad = torch.randn(shape, generator=stream(0, "grad"), dtype=torch.float64)
    unit = threat.steepest(grad)
    zero = torch.zeros_like(grad)
    norm = threat.distance(unit, zero)
    torch.testing.assert_close(norm, torch.ones_like(norm))
    dual = grad.flatten(1).norm(p=DUAL[name], dim=1)
    torch.testing.assert_close((grad * unit).flatten(1).sum(1), dual)
    for i in range(50):
        other = torch.randn(shape, generator=stream(i, "other"), dtype=torch.float64)
        other /= threat.distance(other, zero).view(-1, *[1] * (len(shape) - 1))
        assert ((grad * other).flatten(1).sum(1) <= dual + 1e-12).all()


@every_set
def test_steepest_of_a_zero_gradient_is_zero_and_of_a_tiny_one_is_not(name):
    """1e-30 squared is 0 in float32: the direction must not be lost."""
    grad = torch.zeros(3, 4)
    grad[1], grad[2] = 1e-30, 1e30
    unit = THREATS[name](1.0).steepest(grad)
    step = torch.full((4,), {"linf": 1.0, "l2": 0.5, "l1": 1.0}[name])
    if name == "l1":
        step[1:] = 0  # one pixel, the first of equal ones
    torch.testing.assert_close(unit, torch.stack([0 * step, step, step]))


def test_distances_are_the_norms():
    x, x_adv = (
        torch.zeros(2, 1, 2, 2),
        torch.tensor([[[[0.3, -0.4], [0, 0]]], [[[0, 0], [0, 1.0]]]]),
    )
    torch.testing.assert_close(Linf(1).distance(x_adv, x), torch.tensor([0.4, 1.0]))
    torch.testing.assert_close(L2(1).distance(x_adv, x), torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(L1(1).distance(x_adv, x), torch.tensor([0.7, 1.0]))


def planted(fault, threat, x):
    """Return an adversarial batch with one fault in its last sample."""
    x_adv = threat.project(x + 0.05, x)
    if fault == "outside the ball":
        step = torch.ones_like(x[-1:])
        step /= threat.distance(step, torch.zeros_like(step))
        x_adv[-1] = (x[-1:] + 1.00002 * threat.eps * step)[0]
    elif fault == "outside the box":
        x[-1, 0], x_adv[-1, 0] = 0, -1e-7
    elif fault == "NaN":
        x_adv[-1, -1] = torch.nan
    elif fault == "wrong shape":
        x_adv = x_adv[:, :-1]
    elif fault == "wrong dtype":
        x_adv = x_adv.double()
    return x_adv


@every_set
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("outside the ball", "leaves the ball in sample 2"),
        ("outside the box", r"leaves the box \[0, 1\]"),
        ("NaN", "holds NaN or infinity in 1 of 3"),
        ("wrong shape", "has shape"),
        ("wrong dtype", "float64"),
    ],
)
def test_the_guard_fires_on_every_planted_fault(name, fault, says):
    threat, x = SETS[name], torch.full((3, 6), 0.5)
    x_adv = planted(fault, threat, x)
    assert not threat.contains(x_adv, x)
    with pytest.raises(ThreatViolation, match=says) as error:
        threat.check(x_adv, x)
    assert "\n" not in str(error.value)


@every_set
def test_the_guard_is_silent_on_the_healthy_twin(name):
    threat, x = SETS[name], torch.full((3, 6), 0.5)
    assert threat.contains(planted("none", threat, x), x)
    assert threat.check(planted("none", threat, x), x) is None


@every_set
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_rounding_of_other_precisions_is_no_breach(name, dtype):
    x = torch.rand(8, 50, generator=stream(0, "x")).to(dtype)
    threat = SETS[name]
    far = x + torch.randn(8, 50, generator=stream(0, "far")).to(dtype)
    threat.check(threat.project(far, x), x)
    assert THREATS[name](0.0).project(far, x).equal(x)


@every_set
@pytest.mark.parametrize("eps", [-0.1, math.nan, math.inf, "8/255", None])
def test_a_radius_that_is_none_is_rejected(name, eps):
    with pytest.raises(ValueError, match="eps") as error:
        THREATS[name](eps)
    assert "\n" not in str(error.value)


# --- L1


def nearest_by_bisection(x_adv, x, eps):
    """The projection of one sample by its optimality conditions: shrink by lambda, clip, 200 times.

    The nearest d minimises |d - delta|^2 with |d|_1 <= eps in a box that contains 0: it is
    clip(sign(delta) max(|delta| - lambda, 0), box) for the lambda that uses up eps, or for 0.
    """
    delta, low, high = x_adv - x, -x, 1 - x

    def shrunk(by):
        return torch.clamp(delta.sign() * (delta.abs() - by).clamp_min(0), low, high)

    if shrunk(0).abs().sum() <= eps:
        return x + shrunk(0)
    below, above = 0.0, float(delta.abs().max())
    for _ in range(200):
        middle = (below + above) / 2
        below, above = (middle, above) if shrunk(middle).abs().sum() > eps else (below, middle)
    return x + shrunk(above)


@quick
@given(pair=pairs())
def test_l1_projection_solves_its_optimality_conditions(pair):
    x, x_adv, eps = (part.double() if torch.is_tensor(part) else part for part in pair)
    found = L1(eps).project(x_adv, x)
    for i in range(len(x)):
        expected = nearest_by_bisection(x_adv[i], x[i], eps)
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("eps", [0.1, 0.4, 0.9])
def test_no_point_of_a_fine_grid_is_nearer_than_the_l1_projection(eps):
    """Two pixels, all points of a grid of 1/400 in the set: brute force."""
    axis = torch.linspace(0, 1, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for i in range(40):
        x = torch.rand(1, 2, generator=stream(i, "x"), dtype=torch.float64)
        x_adv = x + 0.8 * torch.randn(1, 2, generator=stream(i, "far"), dtype=torch.float64)
        found = L1(eps).project(x_adv, x)
        inside = grid[(grid - x).abs().sum(1) <= eps]
        nearest = (inside - x_adv).norm(dim=1).min()
        assert (found - x_adv).norm() <= nearest + 1e-12
        assert (found - x_adv).norm() >= nearest - 2 / 400  # and the grid is nearly as good


def test_l1_projection_by_hand():
    """delta (0.6, 0.3, -0.2), eps 0.5: lambda 0.2. First pixel 0.1 from the box: 0."""
    delta = torch.tensor([[0.6, 0.3, -0.2]], dtype=torch.float64)
    x = torch.full((1, 3), 0.4, dtype=torch.float64)
    moved = torch.tensor([[0.4, 0.1, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(L1(0.5).project(x + delta, x) - x, moved)
    x[0, 0] = 0.9
    moved = torch.tensor([[0.1, 0.25, -0.15]], dtype=torch.float64)
    torch.testing.assert_close(L1(0.5).project(x + delta, x) - x, moved)


def test_l1_starts_are_uniform_in_the_ball():
    """In d dimensions (r / eps)^d is uniform; no direction and no orthant is preferred."""
    x = torch.full((4000, 3), 0.5)
    delta = (L1(0.4).sample(x, SampleStreams(0, torch.arange(4000))) - x).double()
    share = (delta.abs().sum(1) / 0.4) ** 3
    assert float(share.mean()) == pytest.approx(0.5, abs=5 / math.sqrt(12 * 4000))
    assert float(share.var()) == pytest.approx(1 / 12, rel=0.1)
    assert (delta.mean(0).abs() < 5 * 0.4 / math.sqrt(10 * 4000)).all()
    part = delta.abs() / delta.abs().sum(1, keepdim=True)  # flat on the simplex: mean 1/3
    assert (part.mean(0) - 1 / 3).abs().max() < 5 * math.sqrt(1 / 18 / 4000)


@pytest.mark.parametrize("eps", [8, 1.5, 1.01])
def test_a_ball_larger_than_the_box_is_rejected(eps):
    message = rf"Linf: eps is in pixel units, \[0, 1\], got {eps}; did you mean {eps}/255\?"
    with pytest.raises(ValueError, match=message):
        Linf(eps)


@pytest.mark.parametrize(("norm", "largest"), [("linf", 1.0), ("l2", 8.0), ("l1", 64.0)])
def test_the_ball_that_is_the_whole_box_is_the_largest(norm, largest):
    """64 pixels: two corners of the box are 1, sqrt(64) and 64 apart."""
    x = torch.zeros(1, 1, 8, 8)
    assert reach(norm, 64) == largest
    require_ball_in_box(THREATS[norm](largest), x)
    assert THREATS[norm](largest).contains(torch.ones_like(x), x)
    if norm != "linf":
        with pytest.raises(ValueError, match="did you mean"):
            require_ball_in_box(THREATS[norm](1.01 * largest), x)


# ------------------------------------------------------------------- frames in [0, peak]

SCALED = [(Linf, 0.2), (L2, 0.7), (L1, 2.0)]


@pytest.mark.parametrize(("ball", "eps"), SCALED)
def test_a_ball_of_frames_up_to_peak_is_the_unit_ball_scaled(ball, eps):
    """Inputs, radius and box times 4 (exact in binary): the same results times 4."""
    x = torch.rand(6, 3, 2, 5, 5, generator=stream(0, "x"))
    far = x + torch.randn(x.shape, generator=stream(0, "far"))
    one, four = ball(eps), ball(4 * eps, peak=4.0)
    torch.testing.assert_close(four.project(4 * far, 4 * x), 4 * one.project(far, x))
    same = [SampleStreams(3, range(6)) for _ in range(2)]
    start = four.sample(4 * x, same[0])
    torch.testing.assert_close(start, 4 * one.sample(x, same[1]))
    assert four.contains(start, 4 * x) and four.contains(four.project(4 * far, 4 * x), 4 * x)
    assert not four.contains(4 * far, 4 * x)
    assert torch.equal(four.steepest(far), one.steepest(far))


@pytest.mark.parametrize(("ball", "eps"), SCALED)
def test_peak_1_is_written_and_stored_as_before(ball, eps):
    assert repr(ball(eps)) == f"{ball.__name__}(eps={eps})" and ball(eps) == ball(eps, peak=1.0)
    assert describe(ball(eps)) == {"kind": ball.__name__, "eps": eps}
    assert describe(ball(eps, peak=4.0)) == {"kind": ball.__name__, "eps": eps, "peak": 4.0}
    assert repr(ball(eps, peak=4.0)) == f"{ball.__name__}(eps={eps}, peak=4)"


def test_counts_above_the_peak_are_refused_with_the_remedy():
    x = torch.full((2, 3, 2, 4, 4), 3.0)
    with pytest.raises(ValueError, match=r"the data go up to 3, the box is \[0, 1\]"):
        require_ball_in_box(Linf(0.1), x)
    with pytest.raises(ThreatViolation, match="the data go up to 3"):
        Linf(0.1).check(x.clamp(0, 1), x)
    require_ball_in_box(Linf(0.1, peak=3.0), x)
    Linf(0.1, peak=3.0).check(x - 0.1, x)


@pytest.mark.parametrize("peak", [0.0, -1.0, math.nan, "1"])
def test_a_peak_that_is_no_largest_value_is_refused(peak):
    with pytest.raises(ValueError, match="peak is the largest value of an input, > 0"):
        Linf(0.1, peak=peak)


@pytest.mark.parametrize(("ball", "eps"), SCALED)
def test_counts_have_no_upper_end(ball, eps):
    """Above 0 the box does not matter: the same as in a box that is far away."""
    x = 20 * torch.rand(6, 3, 2, 5, 5, generator=stream(0, "x"))
    far = x + torch.randn(x.shape, generator=stream(0, "far"))
    free, wide = ball(eps, peak=math.inf), ball(eps, peak=1000.0)
    torch.testing.assert_close(free.project(far, x), wide.project(far, x))
    assert free.contains(free.project(far, x), x) and not free.contains(far, x)
    assert not free.contains(x - x - 0.1, x - x)


def test_a_radius_beyond_the_peak_is_refused():
    Linf(3.0, peak=4.0)
    with pytest.raises(ValueError, match=r"eps 5 reaches every input in \[0, 4\]"):
        Linf(5.0, peak=4.0)

"""Square Attack: schedule and patches counted by hand, its optimum, ties, and when samples stop."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from spikeguard.attacks import L2, Linf, UniformNoise, cost, margin
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.searches.square_patches import (
    moved_length,
    pyramids,
    side,
    signed_square,
    stripes,
    tiles,
)
from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import RandomSource, SampleStreams, stream

EPS = 0.125


class Linear(nn.Module):
    """Class 0 is attacked along +w; ``head`` keeps it from being fooled."""

    def __init__(self, weight, head=10.0):
        super().__init__()
        self.weight, self.head, self.sizes = weight, head, []

    def forward(self, x):
        self.sizes.append(len(x))
        score = ((x - 0.5).flatten(1) * self.weight).sum(1)
        return torch.stack([torch.full_like(score, self.head), score], 1)


def weights(size):
    w = torch.randn(size, generator=stream(0, "w"))
    return torch.where(w.abs() < 0.1, 0.1, w)


def streams(count, seed=4):
    return SampleStreams(seed, torch.arange(count))


def zeros(count):
    return torch.zeros(count, dtype=torch.int64)


# --- schedule and patches


def test_the_share_of_the_image_halves_by_the_schedule():
    at = [0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2000, 2001, 4000, 4001, 4998]
    halved = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7]
    share = Square(Linf(EPS))._share(torch.tensor(at))
    assert share.tolist() == pytest.approx([0.8 / 2**k for k in halved])
    later = Square(Linf(EPS))._share(torch.tensor([6000, 6001, 8000, 8001, 10**6]))
    assert later.tolist() == pytest.approx([0.8 / 2**k for k in (7, 8, 8, 9, 9)])


def test_rescaled_the_schedule_is_run_through_with_any_number_of_queries():
    share = Square(Linf(EPS), queries=100, rescale=True)._share(torch.tensor([0, 1, 5, 60, 81, 99]))
    #                                 corresponds to iteration 0, 100, 500, 6000, 8100, 9900
    assert share.tolist() == pytest.approx([0.8 / 2**k for k in (0, 2, 3, 7, 9, 9)])


@pytest.mark.parametrize(
    ("share", "shape", "expected"),
    [(0.8, (8, 8), 7), (0.4, (8, 8), 5), (0.1, (4, 9), 2), (1e-4, (8, 8), 1), (0.8, (1, 25), 4)],
)
def test_the_side_of_a_square(share, shape, expected):
    assert side(torch.tensor([share]), torch.zeros(1, 3, *shape)).item() == expected


def test_a_square_is_anywhere_with_equal_probability_including_the_last_line_and_column():
    """Side 2 in 4 x 5 pixels: 3 start lines and 4 start columns, 1/12 for each pair."""
    count, image = 6000, torch.zeros(1, 2, 4, 5)
    share = torch.full((count,), 4 / 20)
    window, signs = signed_square(image.expand(count, -1, -1, -1), share, streams(count))
    assert (window.flatten(1).sum(1) == 4).all()
    begin = window.flatten(1).int().argmax(1)
    places = torch.bincount(begin, minlength=20).view(4, 5)
    assert (places[3] == 0).all()
    assert (places[:, 4] == 0).all()
    sigma = (count / 12 * 11 / 12) ** 0.5
    assert (places[:3, :4] - count / 12).abs().max() < 5 * sigma
    assert set(signs.unique().tolist()) == {-1, 1}
    assert signs.mean((0, 2, 3)).abs().max() < 5 / count**0.5
    assert abs((signs[:, 0] * signs[:, 1]).mean()) < 5 / count**0.5, "one sign a channel"


def test_a_patch_longer_than_the_image_is_high_is_cut_to_the_height():
    window, _ = signed_square(torch.zeros(50, 1, 2, 18), torch.full((50,), 0.7), streams(50))
    lines, columns = window.any(2), window.any(1)  # the side is 5
    assert (lines.sum(1) == 2).all()
    assert (columns.sum(1) == 5).all()
    assert columns[:, -1].any()


def test_the_start_is_vertical_stripes():
    signs = stripes(torch.zeros(200, 3, 6, 7), streams(200))
    assert (signs == signs[:, :, :1]).all()
    assert set(signs.unique().tolist()) == {-1, 1}
    assert signs.mean((0, 2)).abs().max() < 5 / 200**0.5


def pyramids_by_loop(tall, wide, upright):
    """Squares of growing size around the centre of each half, the k-th one 1 / k^2 high."""
    upright = (upright and tall > 1) or wide == 1
    pair = torch.zeros(tall, wide, dtype=torch.float64)
    first = (tall // 2, wide) if upright else (tall, wide // 2)
    second = (tall - tall // 2, wide) if upright else (tall, wide - wide // 2)
    top, left = (tall // 2, 0) if upright else (0, wide // 2)
    for (h, w), (r0, c0), sign in ((first, (0, 0), 1), (second, (top, left), -1)):
        half = torch.zeros(h, w, dtype=torch.float64)
        for k in range(max(h // 2, w // 2) + 1):
            rows, columns = (slice(max(n // 2 - k, 0), n // 2 + k + 1) for n in (h, w))
            half[rows, columns] += 1 / (k + 1) ** 2
        pair[r0 : r0 + h, c0 : c0 + w] = sign * half
    return pair


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 1), (3, 3), (5, 5), (7, 7), (2, 6), (6, 3)])
def test_a_pair_of_pyramids(size, upright):
    tall, wide = size
    lines, columns = torch.arange(tall)[None], torch.arange(wide)[None]
    sizes = torch.tensor([tall]), torch.tensor([wide])
    found = pyramids(lines, columns, *sizes, torch.tensor([upright]))[0]
    expected = pyramids_by_loop(tall, wide, upright).float()
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 30), (2, 5, 11)])
def test_under_l2_the_whole_length_is_used_from_the_start_and_stays(shape):
    """Inside the box: the length removed from one window, or unused, is in the other."""
    image = torch.full((20, *shape), 0.5)
    own = streams(20)
    best = image + 0.3 * tiles(image, own)
    torch.testing.assert_close((best - image).flatten(1).norm(dim=1), torch.full((20,), 0.3))
    for share in (0.8, 0.2, 0.01):
        new = moved_length(image, best, torch.full((20,), share), 0.3, own)
        torch.testing.assert_close((new - image).flatten(1).norm(dim=1), torch.full((20,), 0.3))
        assert (new != best).flatten(1).any(1).float().mean() > 0.8
        best = new
    short = image + 0.1 * (best - image)
    new = moved_length(image, short, torch.full((20,), 0.2), 0.3, own)
    torch.testing.assert_close((new - image).flatten(1).norm(dim=1), torch.full((20,), 0.3))


def test_a_point_at_x_itself_and_a_radius_of_zero_give_no_nan():
    image = torch.full((4, 1, 6, 6), 0.5)
    new = moved_length(image, image, torch.full((4,), 0.2), 0.3, streams(4))
    torch.testing.assert_close((new - image).flatten(1).norm(dim=1), torch.full((4,), 0.3))
    assert torch.equal(moved_length(image, image, torch.full((4,), 0.2), 0.0, streams(4)), image)


# --- the search


@pytest.mark.slow
@pytest.mark.parametrize(
    "shape",
    [*[pytest.param(each, marks=pytest.mark.long) for each in ((12,), (3, 2, 2))], (2, 3, 1, 2)],
)
def test_linf_reaches_the_optimum_of_a_linear_model(shape):
    """max <w, x'> is at x + eps sign(w), clipped to the box: pixels reach it one by one."""
    w, x = weights(12), torch.full((3, *shape), 0.5)
    x.view(3, -1)[:, 0], x.view(3, -1)[:, 1] = 0.05, 0.95
    found = Square(Linf(EPS), queries=2500)(Linear(w), x, zeros(3), generator=stream(1, "a"))
    expected = (x.flatten(1) + EPS * w.sign()).clamp(0, 1).view_as(x)
    assert torch.equal(found, expected)


@pytest.mark.slow
def test_l2_climbs_on_a_linear_model_where_as_many_random_points_do_not():
    w = torch.ones(2, 1, 6, 12)
    w[..., 6:] = -1
    x, model = torch.full((4, 2, 1, 6, 12), 0.5), Linear(w.flatten(), 100)
    found = Square(L2(0.5), queries=600)(model, x, zeros(4))
    L2(0.5).check(found, x)
    noise = UniformNoise(L2(0.5), draws=600)(model, x, zeros(4))
    gain, by_chance = (
        (point - x).flatten(1) @ w.flatten() / (0.5 * w.norm()) for point in (found, noise)
    )
    assert gain.min() > 0.5 > 1.5 * by_chance.max()


class Corner(nn.Module):
    """Fooled only where every pixel is above 1/2; all other points have the same logits."""

    def forward(self, x):
        fooled = (x.flatten(1) > 0.5).all(1).to(x.dtype)
        return torch.stack([1 - fooled, fooled], 1)


@pytest.mark.slow
def test_ties_are_accepted_or_a_search_on_quantised_logits_never_moves():
    x, y = torch.full((60, 8), 0.5), zeros(60)
    found = Square(Linf(EPS), queries=1200)(Corner(), x, y, generator=streams(60))
    assert Corner()(found).argmax(1).float().mean() > 0.9

    class Strict:
        """The loss falls a little with every query, so that no tie is accepted."""

        calls = 0

        def __call__(self, logits, y):
            self.calls += 1
            return margin(logits, y) - 1e-4 * self.calls

    still = Square(Linf(EPS), queries=1200, loss=Strict())(Corner(), x, y, generator=streams(60))
    assert Corner()(still).argmax(1).float().mean() < 0.5


def test_a_patch_that_would_change_nothing_gets_the_other_sign():
    """One pixel: every query must flip it, or it would change nothing."""
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append(x[:, 0])
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    Square(Linf(EPS), queries=20)(Watching(), torch.full((9, 1), 0.5), zeros(9))
    points = torch.stack(seen)
    assert torch.equal(points[1:] > 0.5, points[:-1] < 0.5)


def test_a_fooled_sample_makes_no_further_query_and_none_exceeds_the_limit():
    x = torch.full((6, 12), 0.5)
    hard = Linear(weights(12))
    Square(Linf(EPS), queries=37)(hard, x, zeros(6))
    assert hard.sizes == [6] * 37
    w = weights(12)
    easy = Linear(w, head=0.9 * EPS * float(w.abs().sum()))
    found = Square(Linf(EPS), queries=400)(easy, x, zeros(6), generator=stream(1, "a"))
    assert easy(found).argmax(1).all()
    assert easy.sizes[0] == 6
    assert sorted(easy.sizes[:-1], reverse=True) == easy.sizes[:-1]
    assert easy.sizes[-2] < 6
    assert len(easy.sizes) < 400


class Noisy(Linear):
    """Noise larger than the effect of one pixel."""

    stochastic = True

    def __init__(self, weight):
        super().__init__(weight, head=0.0)
        self.random = RandomSource()

    def forward(self, x):
        logits = super().forward(x)
        return logits + 0.3 * self.random.normal(logits, dim=0)


def test_against_a_noisy_model_no_sample_stops_at_one_wrong_draw():
    """Random noise fools half of the samples in the first query; the search must continue."""
    w, x = weights(12), torch.full((100, 12), 0.5)
    gains = []
    for queries in (1, 400):
        model = Noisy(w)
        found = Square(Linf(EPS), queries=queries)(model, x, zeros(100), generator=streams(100))
        assert model.sizes == [100] * queries
        gains.append(float(((found - x) @ w).mean() / (EPS * w.abs().sum())))
    assert abs(gains[0]) < 0.2
    assert gains[1] > 0.6


@pytest.mark.parametrize("threat", [Linf(EPS), L2(0.3)], ids=["linf", "l2"])
def test_event_frames_are_images_of_more_channels_and_rows_of_features_images_of_one_line(threat):
    w = weights(48)
    attack = Square(threat, queries=40)
    for shape, other in (((2, 3, 2, 4), (6, 2, 4)), ((48,), (1, 1, 48))):
        x = torch.rand(3, *shape, generator=stream(0, "x"))
        one = attack(Linear(w), x, zeros(3), generator=streams(3))
        two = attack(Linear(w), x.view(3, *other), zeros(3), generator=streams(3))
        assert torch.equal(one, two.view_as(one))


class Rowwise(nn.Linear):
    """A linear layer whose sums do not depend on the batch size in the last bit."""

    def forward(self, x):
        return (x[..., None, :] * self.weight).sum(-1) + self.bias


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.06), L2(0.2)], ids=["linf", "l2"])
def test_step_by_step_it_finds_what_the_plain_call_finds(threat):
    model = MLP(16, 3, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))
    for module in model.eval().modules():
        if isinstance(module, nn.Linear):
            module.__class__ = Rowwise
    x = torch.rand(30, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    attack = Square(threat, queries=60)
    plain = attack(model, x, y, generator=streams(30))

    def judge(points, rows):
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    for size in (4, 30):
        found, right = active_set(
            attack, model, x, y, streams=streams(30), batch_size=size, judge=judge
        )
        assert torch.equal(found, plain)
        assert 0 < right.sum() < 30


def test_the_cost_is_a_third_a_query():
    assert cost(Square(Linf(EPS), queries=30)) == pytest.approx(10)


@pytest.mark.parametrize(
    ("threat", "options", "says"),
    [
        (Linf(EPS), {"queries": 0}, "queries must be >= 1, got 0"),
        (SimpleNamespace(norm="l1", eps=1.0), {}, "defined for Linf and L2, got 'l1'"),
    ],
)
def test_rejects_in_one_line(threat, options, says):
    with pytest.raises(ValueError, match=says) as error:
        Square(threat, **options)
    assert "\n" not in str(error.value)

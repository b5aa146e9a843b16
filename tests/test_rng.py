"""Random streams: named, reproducible, per sample; fair and independent within stated bounds."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeguard.rng import (
    RandomSource,
    SampleStreams,
    integers,
    key,
    normal,
    part_of_batch,
    random_sources,
    randomness,
    stream,
    uniform,
)

pytestmark = pytest.mark.usefixtures("untouched_global_generator")


class Noisy(nn.Module):
    """The smallest stochastic module: x plus its draws, the sample axis first."""

    def __init__(self):
        super().__init__()
        self.random = RandomSource()

    def forward(self, x):
        return x + self.random.normal(x, dim=0)


def kolmogorov(sample, cdf):
    """Return sqrt(n) sup |F_n - F|; beyond 2.2 lies a fair sample with probability 1.3e-4."""
    value, n = cdf(sample.double().flatten().sort().values), sample.numel()
    step = torch.arange(n + 1, dtype=torch.float64) / n
    return math.sqrt(n) * torch.maximum((step[1:] - value).max(), (value - step[:-1]).max())


def normal_cdf(x):
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


# -------------------------------------------------------------------------- named streams


def test_a_stream_depends_on_its_name_alone():
    first = torch.rand(4, generator=stream(3, "attack", 5, 7))
    torch.rand(9, generator=stream(3, "noise"))
    assert torch.equal(first, torch.rand(4, generator=stream(3, "attack", 5, 7)))


def test_names_that_differ_anywhere_give_other_keys():
    names = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", "b"), (0, "b", "a"), (0, "ab")]
    names += [(0, 1), (0, "1"), (0, 1, 2), (0, 12), (0, "a", 1), (0, "a1"), (-1,), (2**80,)]
    keys = [key(*name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(0 <= k < 2**63 for k in keys)


def test_numbers_of_any_kind_name_the_same_stream():
    """A numpy integer names the same stream as the Python integer."""
    assert key(np.int64(4), "epoch", np.int32(7)) == key(4, "epoch", 7)


# ------------------------------------------------------------------------ SampleStreams


def test_the_generator_is_splitmix64():
    """The published sequence of splitmix64 for the seed 1234567."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    streams = SampleStreams(0, [0])
    streams._state = torch.tensor([1234567])
    found = streams.bits((1, 2), dim=0)[0].tolist() + streams.bits((1, 3), dim=0)[0].tolist()
    assert [bits % 2**64 for bits in found] == published


@given(
    ids=st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=6, unique=True),
    order=st.randoms(use_true_random=False),
    seed=st.integers(-(2**70), 2**70),
)
@settings(max_examples=30, deadline=None)
def test_a_sample_draws_the_same_in_any_batch_and_order(ids, order, seed):
    shuffled = list(ids)
    order.shuffle(shuffled)
    one, other = SampleStreams(seed, ids), SampleStreams(seed, torch.tensor(shuffled))
    for draw in (SampleStreams.uniform, SampleStreams.normal):
        first, second = draw(one, (len(ids), 3)), draw(other, (len(ids), 3))
        for row, sample in enumerate(ids):
            assert torch.equal(first[row], second[shuffled.index(sample)])


@pytest.mark.parametrize("count", [0, 1, 2, 5, 100, 1001, 6000, 40_001])
def test_normal_numbers_do_not_depend_on_the_batch_to_the_last_bit(count):
    """However many samples are worked on at a time: from several at once to less than one."""
    together = SampleStreams(0, range(23)).normal((23, count))
    assert together.shape == (23, count)
    for i in (0, 1, 9, 22):
        assert torch.equal(together[i], SampleStreams(0, [i]).normal((1, count))[0])


@pytest.mark.parametrize("draw", [SampleStreams.uniform, SampleStreams.normal])
@pytest.mark.parametrize(("dim", "shape"), [(0, (3, 4, 5)), (1, (4, 3, 5)), (-1, (4, 5, 3))])
def test_the_sample_axis_may_be_any(dim, shape, draw):
    """A sample's numbers are the same, in order, whichever axis is the sample axis."""
    found = draw(SampleStreams(1, [10, 20, 30]), shape, dim=dim)
    assert found.shape == shape and found.dtype == torch.float32
    for i, sample in enumerate((10, 20, 30)):
        alone = draw(SampleStreams(1, [sample]), (1, 20))
        assert torch.equal(found.select(dim, i).flatten(), alone[0])


def test_draws_go_on_where_the_last_one_ended():
    whole = SampleStreams(0, [1, 2]).uniform((2, 7))
    parts = SampleStreams(0, [1, 2])
    assert torch.equal(torch.cat([parts.uniform((2, n)) for n in (3, 0, 4)], dim=1), whole)


def test_no_number_is_drawn_twice():
    """Normals after normals and uniforms after normals are fresh, also after an odd count."""
    streams = SampleStreams(0, [1])
    parts = [streams.normal((1, n)) for n in (5, 0, 4, 1)]
    assert torch.cat(parts, dim=1).unique().numel() == 10
    streams, twin = SampleStreams(0, [1]), SampleStreams(0, [1])
    streams.normal((1, 5))  # three pairs of 64 bits each
    assert torch.equal(streams.uniform((1, 2)), twin.uniform((1, 5))[:, 3:])


def test_take_continues_and_leaves_the_others_unchanged():
    streams, twin = SampleStreams(0, [4, 5, 6, 7]), SampleStreams(0, [4, 5, 6, 7])
    streams.uniform((4, 2))
    twin.uniform((4, 2))
    rest = twin.uniform((4, 3))
    for index in (torch.tensor([3, 1]), torch.tensor([False, True, False, True])):
        part = streams.take(index)
        assert torch.equal(part.ids, streams.ids[index])
        assert torch.equal(part.uniform((2, 3)), rest[index])
    assert torch.equal(streams.uniform((4, 3)), rest)


def test_fork_depends_on_the_name_and_not_on_what_was_drawn():
    streams = SampleStreams(0, [4, 5])
    before = streams.fork("noise").uniform((2, 8))
    streams.uniform((2, 3))
    assert torch.equal(streams.fork("noise").uniform((2, 8)), before)
    others = [streams.fork("noise", 1), streams.fork("start"), streams, SampleStreams(1, [4, 5])]
    assert all((o.uniform((2, 8)) != before).any() for o in others)
    part = streams.take(torch.tensor([1])).fork("noise")
    assert torch.equal(part.uniform((1, 8)), before[1:])


def test_of_turns_every_source_into_streams():
    streams = SampleStreams(0, [4, 5])
    assert SampleStreams.of(streams, 2) is streams
    a, b = (SampleStreams.of(stream(0, "g"), 3).uniform((3, 4)) for _ in range(2))
    assert torch.equal(a, b)
    generator = stream(0, "g")
    c, d = (SampleStreams.of(generator, 3).uniform((3, 4)) for _ in range(2))
    assert torch.equal(a, c) and not torch.equal(c, d)
    assert torch.equal(SampleStreams.of(None, 3).bits((3, 1), dim=0),
                       SampleStreams(0, [0, 1, 2]).bits((3, 1), dim=0))  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: SampleStreams(0, [[1, 2]]), r"one number a sample \[B\], got \[1, 2\]"),
        (lambda: SampleStreams.of(SampleStreams(0, [1, 2]), 3), "made for 2 samples, got a batch"),
        (lambda: SampleStreams(0, [1, 2]).uniform((3, 2)), r"axis 0 .* length 2, got shape \[3, 2"),
        (lambda: SampleStreams(0, [1, 2]).normal((2, 3), dim=1), r"axis 1 is the sample axis"),
        (lambda: SampleStreams(0, [1, 2]).normal((2, 2), dim=2), r"axis 2 is the sample axis"),
        (lambda: SampleStreams(0, [1]).uniform(()), r"must have length 1, got shape \[\]"),
    ],
)
def test_a_wrong_use_is_rejected_in_one_line(wrong, message):
    with pytest.raises(ValueError, match=rf"^SampleStreams: .*{message}"):
        wrong()


# --------------------------------------------------------------------- quality, with bounds

N = 200_000


@pytest.mark.parametrize("shape", [(1, N), (N, 1), (400, N // 400)])
def test_uniform_along_the_stream_across_samples_and_both(shape):
    """Kolmogorov-Smirnov, also for consecutive ids; mean within 5 standard errors."""
    u = SampleStreams(0, range(shape[0])).uniform(shape)
    assert u.min() >= 0 and u.max() < 1
    assert kolmogorov(u, lambda x: x) < 2.2
    assert abs(u.double().mean() - 0.5) < 5 * math.sqrt(1 / 12 / N)


@pytest.mark.parametrize("shape", [(1, N), (N, 1)])
def test_normal_numbers_are_normal(shape):
    z = SampleStreams(0, range(shape[0])).normal(shape).double()
    assert kolmogorov(z, normal_cdf) < 2.2
    # Standard errors of mean, variance and fourth moment: sqrt(1/n), sqrt(2/n), sqrt(96/n).
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (4, 3, 96)):
        assert abs(z.pow(power).mean() - moment) < 5 * math.sqrt(spread / N)
    assert z.abs().max() < math.sqrt(2 * math.log(2) * 24) + 1e-5  # sqrt(-2 log 2^-24)


def test_the_bounds_tell_an_unfair_sample():
    """A power of 1.03 is seen, and so are a mean of 0.02 and a deviation of 1.03."""
    u = SampleStreams(0, [0]).uniform((1, N))
    assert kolmogorov(u.pow(1.03), lambda x: x) > 2.2
    z = SampleStreams(0, [0]).normal((1, N))
    assert kolmogorov(z + 0.02, normal_cdf) > 2.2 and kolmogorov(z * 1.03, normal_cdf) > 2.2


def test_every_bit_is_fair():
    bits = SampleStreams(5, range(N)).bits((N, 1), dim=0)
    ones = torch.stack([((bits >> k) & 1).double().mean() for k in range(64)])
    assert (ones - 0.5).abs().max() < 5 * math.sqrt(0.25 / N)


def test_samples_seeds_names_and_steps_are_uncorrelated():
    """Any two of many streams, and one with itself shifted: |r| < 5 / sqrt(n)."""
    n = 20_000
    rows = [SampleStreams(0, range(12)).uniform((12, n)), SampleStreams(1, [0]).uniform((1, n))]
    rows += [SampleStreams(0, [0]).fork(name).uniform((1, n)) for name in ("a", "b")]
    rows.append(torch.roll(rows[0][:1], 1, dims=1))
    rows.append(SampleStreams(0, [0]).normal((1, n)))
    r = torch.corrcoef(torch.cat(rows).double())
    r[0, -1] = r[-1, 0] = 0  # the normal numbers are made of the bits of the first row
    assert r.fill_diagonal_(0).abs().max() < 5 / math.sqrt(n)


def test_the_two_normal_numbers_made_of_the_same_bits_are_independent():
    """Neither they nor their squares are correlated: |r| < 5 / sqrt(n)."""
    n = 50_000
    a, b = SampleStreams(0, [0]).normal((1, 2 * n)).double().view(2, n)
    for pair in ((a, b), (a.square(), b.square()), (a.abs(), b)):
        assert torch.corrcoef(torch.stack(pair))[0, 1].abs() < 5 / math.sqrt(n)


# ----------------------------------------------------------------------- sources of modules


@pytest.mark.parametrize("draw", [normal, uniform])
def test_a_generator_and_streams_are_both_sources(draw):
    from_generator = draw(stream(0, "g"), (4, 3), dim=0)
    assert torch.equal(from_generator, draw(stream(0, "g"), (4, 3), dim=0))
    from_streams = draw(SampleStreams(0, range(4)), (4, 3), dim=0)
    assert from_streams.shape == from_generator.shape == (4, 3)
    method = SampleStreams.normal if draw is normal else SampleStreams.uniform
    assert torch.equal(from_streams, method(SampleStreams(0, range(4)), (4, 3)))


def test_unbound_a_module_draws_a_sequence_of_its_own():
    x = torch.zeros(3, 2)
    one, other = Noisy(), Noisy()
    first, second = one(x), one(x)
    assert not torch.equal(first, second)
    assert torch.equal(other(x), first) and torch.equal(other(x), second)


def test_randomness_binds_nests_and_lets_go_also_after_an_error():
    x, model = torch.zeros(3, 2), nn.Sequential(Noisy(), nn.Sequential(Noisy()), nn.ReLU())
    sources = random_sources(model)
    assert sources == [model[0].random, model[1][0].random]
    outer, inner = stream(0, "outer"), SampleStreams(0, range(3))
    with pytest.raises(KeyError), randomness(model, outer):
        with randomness(model, inner):
            assert all(s.current(x.device) is inner for s in sources)
        assert all(s.current(x.device) is outer for s in sources)
        raise KeyError
    assert all(s.bound is None for s in sources)
    with randomness(model, SampleStreams(0, range(3))):
        a = model(x)
    with randomness(model, SampleStreams(0, range(3))):
        assert torch.equal(model(x), a)
    expected = SampleStreams(0, range(3))  # both layers draw from the one source, one after another
    assert torch.equal(a, (expected.normal((3, 2)) + expected.normal((3, 2))).relu())


def test_a_copied_module_starts_its_own_sequence_and_is_not_bound():
    x, model = torch.zeros(3, 2), Noisy()
    first = model(x)
    with randomness(model, stream(0, "bound")):
        twin = copy.deepcopy(model)
    assert twin.random is not model.random and twin.random.bound is None
    assert torch.equal(twin(x), first)


@pytest.mark.parametrize("shape", [(3, 2, 4, 5, 6), (3, 2, 7), (3, 2)])
def test_normal_numbers_do_not_depend_on_the_memory_they_are_written_to(shape):
    plain, source = SampleStreams(1, [5, 9]).normal(shape, dim=1), RandomSource()
    turned = torch.empty(shape[::-1]).permute(*reversed(range(len(shape))))
    source.bound = SampleStreams(1, [5, 9])
    assert torch.equal(source.normal_(turned, dim=1), plain)
    source.bound = stream(3)
    assert torch.equal(source.normal_(turned, dim=1), torch.randn(shape, generator=stream(3)))


# -------------------------------------------------------------------------- parts of a batch


ROWS = torch.tensor([1, 4, 5])


@pytest.mark.parametrize(
    "draw",
    [
        lambda count, source: normal(source, (2, count, 3), dim=1),
        lambda count, source: uniform(source, (count, 3), dim=-2),
        lambda count, source: integers(source, 9, count)[:, None],
        lambda count, source: SampleStreams.of(source, count).uniform((count, 3)),
    ],
)
def test_a_part_of_a_batch_draws_its_rows_of_the_whole(draw):
    source = stream(0, "a")
    whole = draw(6, source)
    after = torch.rand(1, generator=source)
    with part_of_batch(ROWS, 6):
        source = stream(0, "a")
        part = draw(3, source)
    rows = whole[:, ROWS] if whole.shape[1] == 6 else whole[ROWS]
    assert torch.equal(part, rows)
    assert torch.equal(torch.rand(1, generator=source), after)


def test_a_draw_of_another_length_than_the_part_is_rejected():
    with part_of_batch(ROWS, 6):
        for draw in (normal, uniform):
            with pytest.raises(ValueError, match="has 3 of the 6 samples of the batch"):
                draw(stream(0, "a"), (6, 2), dim=0)
        with pytest.raises(ValueError, match="random numbers for 4 samples"):
            SampleStreams.of(stream(0, "a"), 4)
    assert len(normal(stream(0, "a"), (6, 2), dim=0)) == 6

"""Augmentation of event frames: which space it keeps, and plain loops that give the same."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeguard.data import AUGMENTATIONS, Cutout, EventDrop, HorizontalFlip, RandomCrop, TimeJitter
from spikeguard.encoders.input_space import InputSpace
from spikeguard.rng import stream

SPACES = {
    "binary": InputSpace(whole=True, temporal=True),
    "one polarity": InputSpace(whole=True, temporal=True, exclusive=True),
    "counts": InputSpace(high=math.inf, whole=True, temporal=True),
    "few": InputSpace(high=3.0, whole=True, temporal=True),
    "real": InputSpace(temporal=True),
}


def events(space, *, batch=5, T=4, size=6, rate=0.3, seed=0):
    """Frames of a space in which a share of the cells holds events."""
    g = stream(seed, "events")
    shape = (batch, T, 2, size, size)
    high = 20 if math.isinf(space.high) else int(space.high)
    x = torch.randint(1, high + 1, shape, generator=g).float()
    if not space.whole:
        x = x * torch.rand(shape, generator=g)
    x = x * (torch.rand(shape, generator=g) < rate)
    if space.exclusive:
        off = torch.rand(shape[:2] + shape[3:], generator=g) < 0.5
        x[:, :, 0] *= off
        x[:, :, 1] *= ~off
    space.check(x)
    return x


def augmentations():
    return [RandomCrop(2), HorizontalFlip(), Cutout(3), EventDrop(0.4), TimeJitter(0.6)]


@given(
    st.sampled_from(sorted(SPACES)),
    st.sampled_from(range(5)),
    st.integers(0, 10**6),
    st.floats(0, 1),
    st.integers(1, 5),
)
@settings(max_examples=80, deadline=None)
def test_every_augmentation_keeps_the_space(name, number, seed, rate, T):
    space, augment = SPACES[name], augmentations()[number]
    x = events(space, T=T, rate=rate, seed=seed)
    got = augment(x, stream(seed, "augment"))
    space.check(got)
    assert got.shape == x.shape and got.dtype == x.dtype
    assert got.sum() <= x.sum() * (1 + 1e-6)


@pytest.mark.parametrize("augment", [RandomCrop(2), HorizontalFlip(), Cutout(3)])
def test_all_frames_of_a_recording_change_alike(augment):
    """Frames are treated as channels, so each frame alone gives the same as an image."""
    x = events(SPACES["counts"])
    got = augment(x, stream(4, "augment"))
    for t in range(x.shape[1]):
        assert torch.equal(got[:, t], augment(x[:, t], stream(4, "augment")))


# ------------------------------------------------------------------------------ event drop


def test_events_are_dropped_with_their_probability():
    """Of n events each is kept with probability 1 - p: within five standard errors."""
    for space in ("binary", "counts"):
        x = events(SPACES[space], batch=200)
        for p in (0.1, 0.5):
            got, n = EventDrop(p)(x, stream(0, "augment")), float(x.sum())
            assert (got <= x).all()
            assert abs(float(got.sum()) - n * (1 - p)) < 5 * math.sqrt(n * p * (1 - p))
    assert torch.equal(EventDrop(0.0)(x, stream(0, "augment")), x)


def test_a_real_value_is_kept_or_dropped_as_a_whole():
    x = events(SPACES["real"])
    got = EventDrop(0.5)(x, stream(0, "augment"))
    assert ((got == x) | (got == 0)).all() and 0 < (got != x).sum() < (x > 0).sum()


# ----------------------------------------------------------------------------- time jitter


def by_hand(x, p, generator):
    """Move the events of each pixel, in a loop over pixels and frames."""
    B, T, _, H, W = x.shape
    drawn = torch.rand((B, T, H, W), generator=generator)
    found = torch.zeros_like(x)
    for b in range(B):
        for r in range(H):
            for c in range(W):
                site, u = x[b, :, :, r, c], drawn[b, :, r, c]
                to = list(range(T))
                full = [bool(site[t].any()) for t in range(T)]
                for t in range(T):  # first those that go to the next frame
                    if full[t] and u[t] < p / 2 and t + 1 < T and not full[t + 1]:
                        to[t] = t + 1
                for t in range(1, T):
                    taken = t >= 1 and to[t - 1] == t - 1 and full[t - 1]
                    from_before = t >= 2 and to[t - 2] == t - 1
                    if full[t] and u[t] >= 1 - p / 2 and not full[t - 1] and not from_before:
                        assert not taken
                        to[t] = t - 1
                for t in range(T):
                    found[b, to[t], :, r, c] += site[t]
    return found


@pytest.mark.parametrize("space", ["binary", "counts", "real"])
@pytest.mark.parametrize("p", [0.2, 0.9])
def test_time_jitter_equals_a_loop(space, p):
    x = events(SPACES[space], T=6, size=4)
    got = TimeJitter(p)(x, stream(1, "augment"))
    assert torch.equal(got, by_hand(x, p, stream(1, "augment")))
    assert not torch.equal(got, x)


def test_time_jitter_keeps_every_event_its_pixel_and_its_polarity():
    x = events(SPACES["counts"], T=6)
    got = TimeJitter(0.8)(x, stream(2, "augment"))
    assert torch.equal(got.sum(1), x.sum(1))
    assert torch.equal(got.sort(1).values, x.sort(1).values)  # whole cells move
    moved = torch.zeros(1, 5, 1, 1, 1)
    moved[0, 2] = 1.0
    places = {int(TimeJitter(0.9)(moved, stream(s, "augment")).argmax()) for s in range(60)}
    assert places == {1, 2, 3}  # a neighbouring frame and no other


def test_one_frame_has_no_neighbour():
    x = events(SPACES["binary"], T=1)
    assert torch.equal(TimeJitter(0.9)(x, stream(0, "augment")), x)


@pytest.mark.parametrize("make", [EventDrop, TimeJitter])
@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_probability_out_of_range_is_refused(make, p):
    with pytest.raises(ValueError, match=r"p is a probability in \[0, 1\), got"):
        make(p)


def test_they_have_names_for_recipes():
    assert AUGMENTATIONS["event_drop"]() == EventDrop(0.1)
    assert AUGMENTATIONS["time_jitter"]() == TimeJitter(0.1)

"""Augmentation against plain loops, with known draws and known squares."""

import pytest
import torch
from torch import Tensor

from spikeguard.data import AUGMENTATIONS, Compose, Cutout, HorizontalFlip, RandomCrop
from spikeguard.rng import part_of_batch, stream


def pictures(batch=64, channels=3, height=8, width=10) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=stream(0, "pictures"))


def draws(seed, *highs, batch=64):
    """The integers that an augmentation draws, one row a call."""
    generator = stream(seed, "augment")
    return [torch.randint(high, (batch,), generator=generator).tolist() for high in highs]


@pytest.mark.parametrize("padding", [1, 4])
def test_crop_equals_a_loop_over_the_pixels(padding):
    x = pictures()
    got = RandomCrop(padding)(x, stream(1, "augment"))
    tops, lefts = draws(1, 2 * padding + 1, 2 * padding + 1)
    want = torch.zeros_like(x)
    for i, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        for row in range(8):
            for column in range(10):
                r, c = row + top - padding, column + left - padding
                if 0 <= r < 8 and 0 <= c < 10:
                    want[i, :, row, column] = x[i, :, r, c]
    assert torch.equal(got, want)


def test_crop_reaches_every_offset():
    """A lone white pixel in the middle lands on each of the 3 x 3 positions around it."""
    x = torch.zeros(500, 1, 5, 5)
    x[:, :, 2, 2] = 1
    places = RandomCrop(1)(x, stream(0, "augment")).nonzero()[:, 2:].unique(dim=0).tolist()
    assert places == [[r, c] for r in (1, 2, 3) for c in (1, 2, 3)]


def test_flip_twice_is_the_identity_and_mirrors_half():
    x = pictures(batch=400)
    once = HorizontalFlip()(x, stream(2, "augment"))
    assert torch.equal(HorizontalFlip()(once, stream(2, "augment")), x)
    flipped = [bool((a == b.flip(2)).all()) for a, b in zip(once, x, strict=True)]
    kept = [bool((a == b).all()) for a, b in zip(once, x, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 150 < sum(flipped) < 250  # five standard deviations


@pytest.mark.parametrize("size", [1, 3, 4, 8])
def test_cutout_hole_is_centred_on_a_pixel_and_clipped_at_the_border(size):
    """Rows y - size // 2 to y - size // 2 + size - 1 as far as they are in the image."""
    x = torch.ones(64, 3, 8, 10)
    got = Cutout(size)(x, stream(3, "augment"))
    for image, y, c in zip(got, *draws(3, 8, 10), strict=True):
        want = torch.ones(3, 8, 10)
        top, left = y - size // 2, c - size // 2
        want[:, max(top, 0) : min(top + size, 8), max(left, 0) : min(left + size, 10)] = 0
        assert torch.equal(image, want)


def test_cutout_of_even_size_shows_half_a_hole_at_the_upper_border():
    """Centre 0 leaves size / 2 rows, centre 7 of 8 leaves size / 2 + 1, the middle all of them."""
    holes = (Cutout(4)(torch.ones(2000, 1, 8, 8), stream(0, "augment")) == 0).flatten(1)
    heights = {int(h.view(8, 8).any(1).sum()) for h in holes}
    widths = {int(h.view(8, 8).any(0).sum()) for h in holes}
    assert heights == widths == {2, 3, 4}


def test_cutout_that_would_erase_the_image_is_rejected():
    with pytest.raises(ValueError, match="erases an image of 8 x 8"):
        Cutout(16)(torch.ones(1, 1, 8, 8), stream(0, "augment"))


@pytest.mark.parametrize("make", [lambda: RandomCrop(0), lambda: Cutout(0)])
def test_sizes_below_one_pixel_are_rejected(make):
    with pytest.raises(ValueError, match="at least 1 pixel, got 0"):
        make()


def small(name):
    return Cutout(4) if name == "cutout" else AUGMENTATIONS[name]()


FOR_EVENTS = ("event_drop", "time_jitter")


@pytest.mark.parametrize("kind", ["pictures", "frames"])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_contract_of_every_augmentation(name, kind):
    x = pictures() if kind == "pictures" else pictures(channels=6).view(64, 3, 2, 8, 10).round()
    if kind == "pictures" and name in FOR_EVENTS:
        with pytest.raises(ValueError, match=r"is for event frames .* leave it out for images"):
            small(name)(x, stream(5, "augment"))
        return
    before, state = x.clone(), torch.get_rng_state()
    augment = small(name)
    first, again, other = (augment(x, stream(seed, "augment")) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype) == (x.shape, x.dtype)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert augment == small(name)  # compared by value, so that a recipe can hold it
    if name != "event_drop":  # how much it draws depends on the images
        assert augment.by_row and Compose((augment,)).by_row
        rows = torch.tensor([3, 4, 60])
        with part_of_batch(rows, len(x)):
            assert torch.equal(augment(x[rows], stream(5, "augment")), first[rows])
    assert not Compose((augment, lambda x, generator: x)).by_row


def test_compose_applies_in_order_with_one_generator():
    x, parts = pictures(), (RandomCrop(2), HorizontalFlip(), Cutout(3))
    generator = stream(7, "augment")
    want = x
    for part in parts:
        want = part(want, generator)
    assert torch.equal(Compose(parts)(x, stream(7, "augment")), want)
    assert torch.equal(Compose(())(x, stream(7, "augment")), x)

"""decode(): parts of an image by closed forms; files that are no images."""

import math

import numpy as np
import pytest
from PIL import Image

from spikeguard.data.photos.decoding import DRAWS, BadImage, Job, centre_box, decode, random_box


def save(path, pixels, **options):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, **options)
    return path


def job(path, size, **options):
    return Job(str(path.parent), (path.name.encode(),), size, **options)


def coordinates(height, width):
    """Red is the row, green the column."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.zeros_like(x)], -1)


def test_the_centre_of_256_pixels_is_copied_unchanged(tmp_path):
    """The shorter side has 256 pixels already, so 224 of them are the result: 16 .. 239."""
    path = save(tmp_path / "a.png", coordinates(256, 256))
    (found,) = decode(job(path, 224))
    assert found.shape == (3, 224, 224)
    assert (found[0] == np.arange(16, 240)[:, None]).all()
    assert (found[1] == np.arange(16, 240)[None]).all()


def test_of_a_long_image_the_middle_is_taken(tmp_path):
    """73 pixels of the shorter side make 64: of 73 x 183, columns 59 1/2 .. 123 1/2 are kept."""
    assert centre_box(183, 73, 64) == (59.5, 4.5, 123.5, 68.5)
    path = save(tmp_path / "a.png", coordinates(73, 183))
    (found,) = decode(job(path, 64))
    assert abs(found[1].astype(float) - (np.arange(64)[None] + 59.5)).max() <= 1
    assert abs(found[0].astype(float) - (np.arange(64)[:, None] + 4.5)).max() <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 64, 224])
def test_the_centre_lies_inside_the_image(size):
    for width, height in ((1, 1), (1, 900), (500, 375), (7, 8)):
        left, top, right, bottom = centre_box(width, height, size)
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
        assert right - left == pytest.approx(bottom - top)
        assert left + right == pytest.approx(width) and top + bottom == pytest.approx(height)


def test_a_random_part_by_its_numbers():
    """Share u and shape 1/2 give a square: u = 1/2 of 100 x 100 has 73 pixels, place 3/4 of 27."""
    drawn = np.zeros(DRAWS)
    drawn[:4] = 0.5, 0.5, 0.75, 0.0
    side = round(math.sqrt(100 * 100 * (0.08 + 0.92 * 0.5)))
    assert side == 73
    assert random_box(100, 100, drawn) == (21, 0, 94, 73)  # 0.75 (100 - 73 + 1) = 21


def test_a_part_that_does_not_fit_is_drawn_again():
    """The first attempt, of all the area at 4:3, is wider than the square; the second is taken."""
    drawn = np.zeros(DRAWS)
    drawn[:4] = 0.999999, 0.999999, 0, 0
    drawn[4:8] = 0.5, 0.5, 0, 0
    assert random_box(100, 100, drawn) == (0, 0, 73, 73)


@pytest.mark.parametrize(
    ("width", "height", "box"), [(900, 30, (430, 0, 470, 30)), (30, 900, (0, 430, 30, 470))]
)
def test_of_an_extreme_image_the_largest_centred_part_is_taken(width, height, box):
    """No share of at least 8 % at 3:4 .. 4:3 fits into 30 : 1; 4 / 3 of 30 pixels are 40."""
    drawn = np.random.default_rng(0).random(DRAWS)
    assert random_box(width, height, drawn) == box


def test_random_parts_have_the_distribution_of_their_definition():
    """Share uniform in [0.08, 1] where it fits, ratio log-uniform: means within 4 deviations."""
    rng, n = np.random.default_rng(0), 4000
    boxes = np.array([random_box(4000, 4000, each) for each in rng.random((n, DRAWS))])
    w, h = (boxes[:, 2] - boxes[:, 0]).astype(float), (boxes[:, 3] - boxes[:, 1]).astype(float)
    logs = np.log(w / h)
    assert w.min() > 0 and (boxes[:, 2] <= 4000).all() and (boxes[:, 3] <= 4000).all()
    assert abs(logs).max() <= math.log(4 / 3) + 1e-3
    assert abs(logs.mean()) < 4 * math.log(4 / 3) / math.sqrt(3 * n)
    share = w * h / 4000**2
    assert share.min() >= 0.08 - 1e-3 and share.max() <= 1
    small = share[share < 0.7]  # a part of 7/10 fits at any ratio: uniform up to there
    width = 0.7 - 0.08
    assert abs(small.mean() - 0.39) < 4 * width / math.sqrt(12 * len(small))


def test_a_mirror_is_the_mirrored_part(tmp_path):
    path = save(tmp_path / "a.png", coordinates(256, 256))
    draws = np.full((1, DRAWS), 0.9, np.float32)
    (straight,) = decode(job(path, 224, flip=True, draws=draws))
    draws[0, -1] = 0.4
    (mirrored,) = decode(job(path, 224, flip=True, draws=draws))
    assert (mirrored == straight[:, :, ::-1]).all()
    assert not (mirrored == straight).all()


@pytest.mark.parametrize(
    ("pixels", "options", "wanted"),
    [
        (np.full((9, 9), 7), {}, (7, 7, 7)),
        (np.broadcast_to([1, 2, 3, 255], (9, 9, 4)), {}, (1, 2, 3)),
    ],
)
def test_every_image_becomes_rgb(tmp_path, pixels, options, wanted):
    (found,) = decode(job(save(tmp_path / "a.png", pixels, **options), 4))
    assert [set(channel.flatten().tolist()) for channel in found] == [{each} for each in wanted]


def damaged(tmp_path, kind):
    """Return a file that is no image, or is one only in part."""
    path = save(tmp_path / "good.jpeg", coordinates(64, 64))
    content = path.read_bytes()
    broken = {
        "text": b"not an image at all",
        "empty": b"",
        "truncated": content[: len(content) // 2],
        "no pixels": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(8) + b"\x08\x02\0\0\0",
    }[kind]
    (tmp_path / "bad.jpeg").write_bytes(broken)
    return tmp_path / "bad.jpeg"


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "no pixels"])
def test_a_broken_file_is_one_line_with_its_name(tmp_path, kind):
    path = damaged(tmp_path, kind)
    with pytest.raises(BadImage) as caught:
        decode(job(path, 8))
    said = str(caught.value)
    assert said.startswith(f"{path}: not an image that Pillow can read (")
    assert "\n" not in said and "--resume" in said


def test_a_missing_file_and_deep_pixels_are_named(tmp_path):
    with pytest.raises(BadImage, match=r"gone\.png: not an image"):
        decode(job(tmp_path / "gone.png", 8))
    Image.fromarray(np.zeros((9, 9), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(BadImage, match="more than 8 bits"):
        decode(job(tmp_path / "deep.png", 8))


@pytest.mark.parametrize("alpha", [0, 254])
def test_transparent_pixels_are_rejected_as_in_a_folder_without_a_size(tmp_path, alpha):
    pixels = np.full((9, 9, 4), 255, np.uint8)
    pixels[4, 4, 3] = alpha
    path = save(tmp_path / "glass.png", pixels)
    with pytest.raises(BadImage, match=r"glass\.png: has transparent pixels"):
        decode(job(path, 8))


def test_the_parts_of_a_job_are_the_job(tmp_path):
    files, draws = tuple(b"%d" % k for k in range(7)), np.arange(7.0 * DRAWS).reshape(7, DRAWS)
    whole = Job("r", files, 8, True, True, draws)
    for count in (1, 2, 3, 7, 9):
        parts = whole.parts(count)
        assert len(parts) == min(count, 7)
        assert sum((part.files for part in parts), ()) == whole.files
        assert (np.concatenate([part.draws for part in parts]) == whole.draws).all()

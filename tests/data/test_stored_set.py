"""A set whose samples stay on disk: labels and indices, for a subclass of a few lines."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch

from spikeguard.data.stored_set import StoredSet


@dataclass(frozen=True, eq=False)
class Letters(StoredSet):
    kind: ClassVar[str] = "letters"
    where: ClassVar[str] = "files"

    files: tuple[str, ...] = field(kw_only=True)

    def __post_init__(self):
        self._check_stored()


def letters(labels=(0, 1, 1), files=("a", "b", "c"), **options):
    return Letters(labels, 2, "abc", files=files, **options)


def test_its_length_is_that_of_the_stored_samples_and_nothing_is_in_memory():
    found = letters(labels=[0, 1, 1])
    assert len(found) == 3 and found.labels.dtype == torch.int64
    with pytest.raises(AttributeError, match=r"abc: letters stay on disk; call batch\(index\)"):
        _ = found.images
    with pytest.raises(AttributeError, match="'Letters' object has no attribute 'nothing'"):
        _ = found.nothing


@pytest.mark.parametrize(
    ("index", "positions"),
    [(slice(1, None), [1, 2]), ([2, 0], [2, 0]), ([-1], [2]), (torch.tensor([1]), [1]), ([], [])],
)
def test_an_index_is_a_slice_or_positions(index, positions):
    assert letters()._positions(index).tolist() == positions


@pytest.mark.parametrize("index", [1, [[0]]])
def test_another_index_is_rejected(index):
    with pytest.raises(ValueError, match="Letters: an index is a slice or a list of positions"):
        letters()._positions(index)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"labels": [], "files": ()}, "Letters 'abc': holds no letters"),
        ({"labels": [0, 1]}, "Letters 'abc': 3 letters but 2 labels"),
        ({"labels": [0, 1, 2]}, r"labels lie in 0 .. 1 \(num_classes=2\), got 0 .. 2"),
        ({"classes": ("x",)}, "2 classes but 1 class names"),
    ],
)
def test_what_does_not_fit_is_rejected(given, line):
    with pytest.raises(ValueError, match=line):
        letters(**given)

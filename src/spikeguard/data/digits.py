"""The handwritten digits shipped with the package: real images, fast to train on any machine."""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch

from spikeguard.data.images import ImageSet

__all__ = ["read_digits"]


def read_digits() -> tuple[ImageSet, ImageSet]:
    """Return 1297 training and 500 test images, 8 x 8, 16 grey levels.

    The split is part of the file (array ``is_test``): within each class the images are ordered by
    ``rng.key(0, "digits", i)``, i being the position in the UCI file; the r-th of n is placed at
    (r + 1/2) / n, and the first 500 of all are the test images. Both parts keep the UCI order.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
        Repository, 1998, doi:10.24432/C50P49, CC BY 4.0; see DIGITS.md beside the file.
    """
    with (
        as_file(files("spikeguard.data") / "digits.npz") as path,
        np.load(path, allow_pickle=False) as stored,
    ):
        images = torch.from_numpy(stored["images"])[:, None]
        labels = torch.from_numpy(stored["labels"]).long()
        is_test = torch.from_numpy(stored["is_test"]).bool()
    return (
        ImageSet(images[~is_test], labels[~is_test], 10, "digits/train", peak=16.0),
        ImageSet(images[is_test], labels[is_test], 10, "digits/test", peak=16.0),
    )

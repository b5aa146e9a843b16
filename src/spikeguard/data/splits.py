"""make_splits(): training, validation and test images of own data, ready for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from spikeguard.data.augment import Augmentation, augmentation_named
from spikeguard.data.events.event_set import UNSCALED, EventSet
from spikeguard.data.images import ImageSet, Splits
from spikeguard.data.photos.photo_set import PhotoSet
from spikeguard.data.stratified import mixed_order, split_validation, stratified_order
from spikeguard.rng import stream

__all__ = ["make_splits", "split_test", "statistics"]

_CHUNK = 1024
_DECODED = 2048  # images of a PhotoSet that mean and deviation are taken from


def make_splits(
    train: ImageSet,
    test: ImageSet | None = None,
    val: ImageSet | None = None,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    augment: Sequence[str] | Augmentation | None = None,
) -> Splits:
    """Return images as the ``Splits`` that ``train`` takes, with the mean and std of the training.

    Args:
        train: Training images; all images if there are no test images.
        test: Test images. Left out, ``test_fraction`` of ``train`` is set aside for them, with the
            class proportions of all and the same choice for every seed.
        val: Validation images. Left out, ``val_fraction`` of the training images is set aside.
            Images grouped by class get a fixed order that mixes the classes, as those set aside
            for testing do; ``test`` stays as it is.
        val_fraction: Share of the training images for validation, in [0, 1); 0 for none.
        test_fraction: Share of all images for testing, in (0, 1).
        seed: Seed of the choice of validation images.
        augment: Names in ``AUGMENTATIONS``, or an augmentation, for training batches.

    Raises:
        ValueError: If the parts do not fit together, a share leaves a part empty, or a class has no
            training image.

    Example:
        >>> data = make_splits(from_arrays(x, y), val_fraction=0.2)        # doctest: +SKIP
        >>> len(data.train), len(data.val), len(data.test)                 # doctest: +SKIP
        (640, 160, 200)
    """
    if test is None:
        train, test = split_test(train, test_fraction)
    absent = [
        name
        for name, count in zip(
            train.classes or map(str, range(train.num_classes)),
            train.labels.bincount(minlength=train.num_classes).tolist(),
            strict=True,
        )
        if not count
    ]
    if absent:
        raise ValueError(
            f"{train.name}: no training image of class {absent[0]}; classes are numbered from 0 "
            "without gaps, classes, y = np.unique(y, return_inverse=True)."
        )
    if val is None and val_fraction != 0:
        train, val = split_validation(train, val_fraction, seed)
    val = None if val is None else mixed_order(val)
    mean, std = UNSCALED[train.shape[0]] if isinstance(train, EventSet) else statistics(train)
    if isinstance(augment, Sequence):
        augment = augmentation_named(augment)
    return Splits(train, val, test, mean, std, augment)


def statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel [C], in [0, 1] units, to 4 digits.

    The deviation is at least 0.01, so that a constant channel is not divided by zero. Event frames
    are not normalised: 0 and 1. Of images that are decoded from files, the first 2048 are taken.
    """
    channels = images.shape[0]
    if images.space.temporal:
        return (0.0,) * channels, (1.0,) * channels
    read = min(len(images), _DECODED) if isinstance(images, PhotoSet) else len(images)
    total, squares, count = torch.zeros(channels).double(), torch.zeros(channels).double(), 0
    for start in range(0, read, _CHUNK):
        x = images.batch(slice(start, min(start + _CHUNK, read)))[0].double()
        total += x.sum((0, 2, 3)).cpu()
        squares += x.square().sum((0, 2, 3)).cpu()
        count += x.numel() // channels
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt().clamp_min(0.01)
    return tuple(round(v, 4) for v in mean.tolist()), tuple(round(v, 4) for v in std.tolist())


def split_test(images: ImageSet, fraction: float = 0.2) -> tuple[ImageSet, ImageSet]:
    """Return training and test images: the same for every seed, so that runs can be compared."""
    count = round(fraction * len(images)) if 0 < fraction < 1 else 0
    if not 0 < count < len(images):
        raise ValueError(
            f"{images.name}: {fraction:g} of {len(images)} images leaves the training or the test "
            "images empty; the share lies in (0, 1)."
        )
    order = stratified_order(images.labels, stream(0, "test images"))
    return (
        images.subset(order[count:].sort().values),
        mixed_order(
            replace(images.subset(order[:count].sort().values), name=f"{images.name}/test")
        ),
    )

"""DATASETS, the registry of data sets, and load(), which reads one, or own data, from disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spikeguard.data.augment import Augmentation, augmentation_named
from spikeguard.data.cifar import CIFAR10, CIFAR100, read_cifar
from spikeguard.data.digits import read_digits
from spikeguard.data.events.cifar10_dvs import read_cifar10_dvs
from spikeguard.data.events.event_set import UNSCALED, EventSet
from spikeguard.data.events.framing import Framing
from spikeguard.data.events.gesture import read_gesture
from spikeguard.data.events.nmnist import read_nmnist
from spikeguard.data.idx import read_mnist
from spikeguard.data.images import ImageSet, Splits
from spikeguard.data.names import unknown_name
from spikeguard.data.own import OwnData, find_own, read_own
from spikeguard.data.paths import data_root
from spikeguard.data.photos.photo_folders import read_imagenet
from spikeguard.data.photos.photo_set import WHILE_DECODING, PhotoSet
from spikeguard.data.splits import make_splits, split_test
from spikeguard.data.stratified import split_validation, stratified_order
from spikeguard.rng import stream

__all__ = ["DataSet", "DATASETS", "load", "load_own"]


@dataclass(frozen=True)
class DataSet:
    """How a data set is read and normalised.

    Args:
        read: Takes the data root and returns the training and the test images.
        mean: Per-channel mean of the training pixels, in [0, 1] units.
        std: Per-channel scale that the model divides by, in [0, 1] units: the standard deviation
            of the training pixels, except for CIFAR-10: there the smaller numbers in common use
            (the mean deviation within an image), with which published networks were trained. Event
            frames have mean 0 and scale 1.
        sized: Whether the images are files of any size, which ``load`` needs a ``size`` for.
    """

    read: Callable[[Path], tuple[ImageSet, ImageSet]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sized: bool = False


DATASETS: dict[str, DataSet] = {
    "digits": DataSet(lambda root: read_digits(), (0.3,), (0.37,)),
    "mnist": DataSet(read_mnist, (0.1307,), (0.3081,)),
    "cifar10": DataSet(
        lambda root: read_cifar(CIFAR10, root), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    ),
    "cifar100": DataSet(
        lambda root: read_cifar(CIFAR100, root), (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    ),
    "nmnist": DataSet(read_nmnist, *UNSCALED[2]),
    "dvs-gesture": DataSet(read_gesture, *UNSCALED[2]),
    "cifar10-dvs": DataSet(read_cifar10_dvs, *UNSCALED[2]),
    "imagenet": DataSet(read_imagenet, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), sized=True),
}


def load(
    name: str | Path,
    root: str | Path | None = None,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    train_limit: int | None = None,
    test_limit: int | None = None,
    augment: Sequence[str] | None = None,
    framing: Framing | None = None,
    skip_bad: bool = False,
    size: int | None = None,
    known: Mapping[str, DataSet] = DATASETS,
) -> Splits:
    """Read a data set from disk.

    Args:
        name: A name in ``DATASETS``, or the path of own data: an ``.npz`` file, an ``.npy`` file
            beside its ``labels.npy``, or a folder of images or recordings by class (see
            ``read_own``).
        root: Folder of the data sets; default ``$SPIKEGUARD_DATA``, else ``data``.
        val_fraction: Share of the training images that is set aside for validation, in [0, 1);
            with 0 every training image is trained on, and ``val`` is None.
        seed: Seed of the random choice of validation images and of limited training images.
        train_limit: Number of training images to use, validation included: a random choice by
            ``seed`` with the class proportions of all, in the order of the files. A smaller choice
            is contained in a larger one.
        test_limit: Number of test images to use: the first ones, the same for every seed.
        augment: Names in ``AUGMENTATIONS``, applied to training batches in this order. Of images
            that are decoded at a ``size``, "resized_crop" and "flip" are applied first.
        framing: How event recordings become frames; ``Framing(T=10)`` when left out. Only for
            events.
        skip_bad: Leave out event recordings that cannot be read, with a
            ``SkippedRecordingWarning``; reads every recording once. Otherwise the first one that is
            used raises ``BadRecording``.
        size: Height and width in pixels to which image files are cut when they are read, batch by
            batch (see ``PhotoSet``); needed for "imagenet", and for a folder of images of different
            sizes, or of more images than fit into memory.
        known: The registry in which the name is looked up.

    Raises:
        ValueError: If a name is unknown, a number is out of range, or a file is missing or
            damaged.

    Example:
        >>> data = load("digits")
        >>> len(data.train), len(data.val), len(data.test), data.train.shape
        (1167, 130, 500, (1, 8, 8))
    """
    if name not in known:
        return load_own(
            read_own(_found(name, data_root(root), known), size),
            str(name),
            val_fraction=val_fraction,
            seed=seed,
            train_limit=train_limit,
            test_limit=test_limit,
            augment=augment,
            framing=framing,
            skip_bad=skip_bad,
            size=size,
        )
    data_set = known[str(name)]
    read = data_set.read(data_root(root))
    train, test = (_as_asked(part, framing, skip_bad, size) for part in read)
    train, augmentation = _augmented(train, augment or ())
    train, test = _limited(train, train_limit, seed), _first(test, test_limit)
    val = None
    if val_fraction != 0:
        train, val = split_validation(train, val_fraction, seed)
    mean, std = data_set.mean, data_set.std
    if isinstance(train, EventSet):
        mean, std = UNSCALED[train.shape[0]]
    return Splits(train, val, test, mean, std, augmentation)


def load_own(
    own: OwnData,
    name: str,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    train_limit: int | None = None,
    test_limit: int | None = None,
    augment: Sequence[str] | None = None,
    framing: Framing | None = None,
    skip_bad: bool = False,
    size: int | None = None,
) -> Splits:
    """Return own data as splits; the arguments are those of ``load``, and of ``make_splits``."""
    own = own.changed(lambda part: _as_asked(part, framing, skip_bad, size))
    if own.splits is not None:
        train, augmentation = _augmented(own.splits.train, augment or ())
        train = _limited(train, train_limit, seed)
        test = _first(own.splits.test, test_limit)
        return replace(
            own.splits, train=train, test=test, augment=augmentation or own.splits.augment
        )
    train, val, given = own.for_training(name)
    train, augmentation = _augmented(train, augment or ())
    train, test = split_test(train) if given is None else (train, given)
    train, test = _limited(train, train_limit, seed), _first(test, test_limit)
    return make_splits(train, test, val, val_fraction=val_fraction, seed=seed, augment=augmentation)


def _augmented(train: ImageSet, names: Sequence[str]) -> tuple[ImageSet, Augmentation | None]:
    """Return the training images and the augmentation of their batches.

    A ``PhotoSet`` applies those of ``WHILE_DECODING`` itself.
    """
    if not isinstance(train, PhotoSet):
        if "resized_crop" in names:
            raise ValueError(
                "load: augmentation resized_crop is for image files that are read at a size, not "
                f"for {train.name}; write crop, or data.size."
            )
        return train, augmentation_named(names)
    drawn = tuple(name for name in WHILE_DECODING if name in names)
    return (
        replace(train, drawn=drawn),
        augmentation_named([name for name in names if name not in drawn]),
    )


def _as_asked(
    images: ImageSet, framing: Framing | None, skip_bad: bool, size: int | None
) -> ImageSet:
    """Set the framing of events or the size of photographs; reject what is not for these data."""
    if isinstance(images, PhotoSet):
        if size is None:
            raise ValueError(
                f"load: {images.name} has images of any size; write the one to cut them to, size "
                "(data.size= in a recipe): 64 or 224."
            )
        images = replace(images, size=size)
    elif size is not None:
        raise ValueError(
            f"load: size is for image files, which {images.name} is not; leave it out."
        )
    if not isinstance(images, EventSet):
        if framing is not None or skip_bad:
            given = "frames" if framing is not None else "skip_bad"
            raise ValueError(
                f"load: {images.name} holds images, and {given} is for event recordings; leave it "
                "out."
            )
        return images
    events = images if framing is None else replace(images, framing=framing)
    if skip_bad:
        events = events.readable()
        events.warn_of_skipped()
    return events


def _limited(train: ImageSet, limit: int | None, seed: int) -> ImageSet:
    """Return a random choice of training images with the class proportions of all."""
    if limit is None:
        return train
    _check_limit("train_limit", limit, train)
    order = stratified_order(train.labels, stream(seed, "limit"))
    return train.subset(order[:limit].sort().values)


def _first(test: ImageSet, limit: int | None) -> ImageSet:
    if limit is None:
        return test
    _check_limit("test_limit", limit, test)
    return test.subset(slice(limit))


def _found(name: str | Path, root: Path, known: Iterable[str]) -> Path:
    """Return the path of own data; raise ValueError for a name that is neither known nor a path."""
    path = find_own(name, root)
    if path is not None:
        return path
    if isinstance(name, Path) or Path(name).suffix or "/" in name:
        raise ValueError(
            f"load: {name}: no such file or folder, in the current folder or in {root}."
        )
    raise unknown_name("data set", name, known, also="; or the path of an .npz file or a folder")


def _check_limit(field: str, limit: int, images: ImageSet) -> None:
    if not 1 <= limit <= len(images):
        raise ValueError(
            f"load: {field} lies in 1 .. {len(images)}, the images of {images.name}, got {limit}."
        )

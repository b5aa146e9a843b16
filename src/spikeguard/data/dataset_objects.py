"""from_dataset(): labelled images from a torch Dataset or DataLoader, or from columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, SequentialSampler

from spikeguard.data.arrays import from_arrays
from spikeguard.data.columns import CLASSES, one_column
from spikeguard.data.folders import opaque
from spikeguard.data.images import ImageSet

__all__ = ["from_dataset"]

_TWICE = 16  # samples that are read twice, to detect random transforms


def from_dataset(
    dataset: Any,
    *,
    classes: Sequence[str] = (),
    num_classes: int | None = None,
    name: str | None = None,
) -> ImageSet:
    """Read all samples of a data set object into memory.

    Args:
        dataset: A ``torch.utils.data.Dataset`` of (image, label) or of mappings, a ``DataLoader``
            that does not shuffle, a data set of Hugging Face, or a mapping of columns such as
            ``{"image": [...], "label": [...]}``. An image is a tensor [C, H, W], an array
            [H, W, C] or [H, W], or a Pillow image.
        classes: Names of the classes; those that the object knows when left out.
        num_classes: Number of classes; that of the names, else the largest label + 1.
        name: Name in messages and results; that of the object's class when left out.

    Raises:
        ValueError: If the object is something else, its samples are not (image, label), two images
            differ in size, reading a sample twice gives different images, or the loader shuffles.
    """
    name = name or type(dataset).__name__
    if isinstance(dataset, Mapping):
        images, labels = (dataset[column] for column in one_column(dataset, name))
        classes = classes or next((dataset[key] for key in CLASSES if key in dataset), ())
        if not isinstance(images, Tensor | np.ndarray):
            images = [_array(image, name) for image in images]
    else:
        images, labels = _read(dataset, name)
        classes = classes or _class_names(dataset)
    return from_arrays(
        _stacked(images, name), labels, classes=classes, num_classes=num_classes, name=name
    )


def _read(dataset: Any, name: str) -> tuple[list[Any], Any]:
    """Return the images and labels of a Dataset or DataLoader."""
    if isinstance(dataset, DataLoader):
        _require_order(dataset, name)
        _require_repeatable(dataset.dataset, name)
        batches = [_pair(batch, name) for batch in dataset]
        if not batches:
            raise ValueError(f"{name}: has no images.")
        images = [image for batch, _ in batches for image in batch]
        return images, np.concatenate([np.asarray(labels) for _, labels in batches])
    _require_repeatable(dataset, name)
    samples = [_pair(sample, name) for sample in _samples(dataset, name)]
    if not samples:
        raise ValueError(f"{name}: has no images.")
    labels = [
        label.item() if isinstance(label, Tensor) and label.numel() == 1 else label
        for _, label in samples
    ]
    return [_array(image, name) for image, _ in samples], labels


def _samples(dataset: Any, name: str, limit: int | None = None) -> Iterator[Any]:
    """Yield the samples of a Dataset in order."""
    if hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"):
        count = len(dataset) if limit is None else min(limit, len(dataset))
        yield from (dataset[place] for place in range(count))
    elif isinstance(dataset, Dataset):  # iterable
        if limit is None:
            yield from iter(dataset)
    else:
        raise ValueError(
            f"{name}: is no data set; pass a pair (x, y), a mapping with x and y, a Dataset, or a "
            "DataLoader."
        )


def _pair(sample: Any, name: str) -> tuple[Any, Any]:
    if isinstance(sample, Mapping):
        images, labels = one_column(sample, name)
        return sample[images], sample[labels]
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return sample[0], sample[1]
    held = (
        f"{type(sample).__name__} of {len(sample)}" if hasattr(sample, "__len__") else repr(sample)
    )
    raise ValueError(
        f"{name}: a sample is (image, label), got {held}; write a Dataset whose "
        "__getitem__ returns (image, label)."
    )


def _array(image: Any, name: str) -> Tensor | NDArray[Any]:
    """Return an image as a tensor or an array; a Pillow image becomes [H, W] or [H, W, C]."""
    if hasattr(image, "getbands"):
        flat = opaque(image, name)
        return np.asarray(flat.convert("L" if flat.mode in ("1", "L") else "RGB"))
    return image if isinstance(image, Tensor) else np.asarray(image)


def _stacked(images: Any, name: str) -> Tensor | NDArray[Any]:
    """Stack images of one shape and kind."""
    if isinstance(images, Tensor | np.ndarray):
        return images
    if not images:
        raise ValueError(f"{name}: has no images.")
    first = images[0]
    for place, image in enumerate(images):
        if image.shape != first.shape or image.dtype != first.dtype:
            raise ValueError(
                f"{name}: image {place} is {_kind(image)}, image 0 {_kind(first)}; let a transform "
                "resize and convert all to one."
            )
    if isinstance(first, Tensor):
        return torch.stack([image.detach().cpu() for image in images])
    return np.stack(images)


def _kind(image: Tensor | NDArray[Any]) -> str:
    return f"{image.dtype} {list(image.shape)}"


def _require_order(loader: DataLoader[Any], name: str) -> None:
    """Reject a loader that shuffles or leaves images out: "the first 100" must mean something."""
    sampler = loader.sampler
    if loader.batch_sampler is not None:
        sampler = getattr(loader.batch_sampler, "sampler", sampler)
    stream = isinstance(loader.dataset, torch.utils.data.IterableDataset)
    if not stream and not isinstance(sampler, SequentialSampler):
        raise ValueError(
            f"{name}: reads in the order of a {type(sampler).__name__}, so the first images differ "
            "from run to run; pass a DataLoader with shuffle=False, of a Subset if need be."
        )
    own: Any = loader.batch_sampler
    if not (stream or own is None or type(own) is BatchSampler or _is_whole(own, loader.dataset)):
        raise ValueError(
            f"{name}: its {type(own).__name__} does not read every image once and in order; pass a "
            "DataLoader with shuffle=False and without batch_sampler."
        )
    if loader.drop_last:
        raise ValueError(f"{name}: leaves out the last images; pass drop_last=False.")


def _is_whole(batches: Any, dataset: Any) -> bool:
    """Whether a batch sampler gives every place of a data set once, in order."""
    return [place for batch in batches for place in batch] == list(range(len(dataset)))


def _require_repeatable(dataset: Any, name: str) -> None:
    """Reject a random transform: read the first samples twice and compare."""
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return
    first, again = (list(_samples(dataset, name, _TWICE)) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        a, b = (_array(_pair(sample, name)[0], name) for sample in (one, other))
        if a.shape != b.shape or not np.array_equal(np.asarray(a), np.asarray(b), equal_nan=False):
            if _holds_nan(a):
                return  # reported with the pixels
            raise ValueError(
                f"{name}: returns another image when it is read again; leave random transforms out "
                "(training augments with augment=)."
            )


def _holds_nan(image: Tensor | NDArray[Any]) -> bool:
    array = np.asarray(image)
    return array.dtype.kind == "f" and bool(np.isnan(array).any())


def _class_names(dataset: Any) -> tuple[str, ...]:
    """Return the class names that an object knows: torchvision's or Hugging Face's."""
    if isinstance(dataset, DataLoader):
        return _class_names(dataset.dataset)
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        for feature in features.values():
            if isinstance(names := getattr(feature, "names", None), list):
                return tuple(map(str, names))
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()

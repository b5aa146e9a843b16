"""Orders and splits of labelled images that keep the proportions of the classes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikeguard.data.images import ImageSet
from spikeguard.rng import stream

__all__ = ["few_classes", "mixed_order", "split_validation", "stratified_order"]


def split_validation(train: ImageSet, fraction: float, seed: int) -> tuple[ImageSet, ImageSet]:
    """Cut a validation part with the class proportions of ``train`` from it.

    Args:
        train: Images to split; both parts keep their order.
        fraction: Share that goes to validation, in (0, 1).
        seed: Names the random stream ``(seed, "validation")``; same seed, same split.

    Returns:
        The remaining training part and the validation part.

    Raises:
        ValueError: If ``fraction`` is out of range or would leave a part empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"split_validation: fraction lies in (0, 1), got {fraction:g}.")
    count = round(fraction * len(train))
    if not 0 < count < len(train):
        raise ValueError(
            f"split_validation: {fraction:g} of {len(train)} images leaves a part empty; "
            "use more images or another fraction."
        )
    order = stratified_order(train.labels, stream(seed, "validation"))
    return (
        replace(train.subset(order[count:].sort().values), name=f"{train.name}/train"),
        replace(train.subset(order[:count].sort().values), name=f"{train.name}/val"),
    )


def stratified_order(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random order [N] in which every prefix has the class proportions of the whole.

    The r-th of the n images of a class, in random order, is placed at (r + 1/2) / n; ties are
    broken at random. With classes of equal size, the counts in the first k differ by at most one.
    """
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=generator, device="cpu")
    by_class = order[labels[order].argsort(stable=True)]
    counts = labels.bincount()
    sizes = counts.repeat_interleave(counts)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    place = torch.empty(len(labels), dtype=torch.float64)
    place[by_class] = (torch.arange(len(labels), device="cpu") - first + 0.5).double() / sizes
    return order[place[order].argsort(stable=True)]


def mixed_order(images: ImageSet) -> ImageSet:
    """Return images grouped by class in a fixed order whose prefixes have all class proportions.

    "The first 100 images" would otherwise be of one class. The classes may follow each other in any
    order. Images that are not grouped stay as they are.
    """
    if not _grouped(images.labels):
        return images
    return images.subset(stratified_order(images.labels, stream(0, "order")))


def few_classes(images: ImageSet, limit: int) -> str:
    """Return a warning if the first images of a set grouped by class lack classes, else "".

    Args:
        images: The whole set.
        limit: Number of images that are used, the first ones.
    """
    labels = images.labels
    if limit >= len(labels) or not _grouped(labels):
        return ""
    some, whole = map(_distinct, (labels[:limit], labels))
    if some == whole:
        return ""
    return (
        f"the images are grouped by class, and the first {limit} are of {some} of {whole} classes: "
        "the result is not that of the whole set; shuffle images and labels together"
    )


def _distinct(labels: Tensor) -> int:
    return int((labels.bincount() > 0).sum())


def _grouped(labels: Tensor) -> bool:
    """Whether the images of every class are next to each other, and there are several classes."""
    if len(labels) == 0:
        return False
    changes = int((labels[1:] != labels[:-1]).sum())
    if changes == 0 or changes != _distinct(labels) - 1:
        return False
    ascending = bool((labels[1:] >= labels[:-1]).all())
    return ascending or changes < len(labels) - 1  # one image of each class is no group

"""Data sets as labelled images in [0, 1]: digits, MNIST, CIFAR-10 and CIFAR-100.

``load`` reads from disk only; ``download`` fetches an official archive.
"""

from __future__ import annotations

from spikeguard.data.augment import (
    AUGMENTATIONS,
    Augmentation,
    Compose,
    Cutout,
    HorizontalFlip,
    RandomCrop,
)
from spikeguard.data.datasets import DATASETS, DataSet, load
from spikeguard.data.downloads import DownloadError, download
from spikeguard.data.images import Data, ImageSet, Splits, as_image_set, split_validation

__all__ = [
    "AUGMENTATIONS",
    "Augmentation",
    "Compose",
    "Cutout",
    "DATASETS",
    "Data",
    "DataSet",
    "DownloadError",
    "HorizontalFlip",
    "ImageSet",
    "RandomCrop",
    "Splits",
    "as_image_set",
    "download",
    "load",
    "split_validation",
]

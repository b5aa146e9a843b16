"""Data sets as labelled images in [0, 1], or as event recordings that become frames; and own data.

``load`` reads from disk only; ``download`` fetches an official archive; ``from_arrays``,
``from_folder`` and ``from_dataset`` take own images, which ``make_splits`` prepares for training.
"""

from __future__ import annotations

from spikeguard.data.arrays import from_arrays
from spikeguard.data.augment import (
    AUGMENTATIONS,
    Augmentation,
    Compose,
    Cutout,
    HorizontalFlip,
    RandomCrop,
)
from spikeguard.data.augment_events import EventDrop, TimeJitter
from spikeguard.data.dataset_objects import from_dataset
from spikeguard.data.datasets import DATASETS, DataSet, load
from spikeguard.data.downloads import DownloadError, download
from spikeguard.data.events.event_set import EventSet
from spikeguard.data.events.framing import Framing
from spikeguard.data.events.own_events import from_recordings
from spikeguard.data.events.recording import BadRecording, Recording
from spikeguard.data.folders import from_folder
from spikeguard.data.images import Data, ImageSet, Splits, as_image_set
from spikeguard.data.photos.decoding import BadImage
from spikeguard.data.photos.photo_folders import photo_folder
from spikeguard.data.photos.photo_set import PhotoSet
from spikeguard.data.splits import make_splits
from spikeguard.data.stratified import split_validation

__all__ = [
    "AUGMENTATIONS",
    "BadImage",
    "Augmentation",
    "BadRecording",
    "Compose",
    "Cutout",
    "DATASETS",
    "Data",
    "DataSet",
    "DownloadError",
    "EventDrop",
    "EventSet",
    "Framing",
    "HorizontalFlip",
    "ImageSet",
    "PhotoSet",
    "RandomCrop",
    "Recording",
    "Splits",
    "TimeJitter",
    "as_image_set",
    "download",
    "from_arrays",
    "from_dataset",
    "from_folder",
    "from_recordings",
    "load",
    "make_splits",
    "photo_folder",
    "split_validation",
]

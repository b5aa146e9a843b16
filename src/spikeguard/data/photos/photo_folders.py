"""Folders of photographs as ``PhotoSet``s: class folders, and the flat validation of ILSVRC."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from spikeguard.data.events.files import first_folder
from spikeguard.data.folders import class_files, image_files, pillow
from spikeguard.data.photos.photo_set import PhotoSet
from spikeguard.data.stratified import mixed_order

__all__ = ["photo_folder", "read_imagenet"]

SIZE = 224  # pixels, until another size is set
_FOLDERS = ("imagenet", "ImageNet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC", ".")
_LISTS = ("val.txt", "val_labels.txt", "LOC_val_solution.csv", "val_annotations.txt")
_HEADER = "ImageId,"  # first line of LOC_val_solution.csv


def read_imagenet(root: Path) -> tuple[PhotoSet, PhotoSet]:
    """Return the training images of ImageNet, and the validation images to test on.

    Looks for ``train`` in root/imagenet, root/ImageNet, root/ILSVRC2012, root/ILSVRC/Data/CLS-LOC
    and root. ``train`` has one folder of images per class, ``val`` too, or all images in one folder
    beside a file with a line "FILE CLASS" for each (see ``_flat``). The labels of the official test
    images are not public; results are on the validation images.

    Raises:
        ValueError: If a folder, a class or a label is missing, or ``val`` has a class that
            ``train`` does not have.

    Source: Russakovsky et al., "ImageNet large scale visual recognition challenge", 2015
        (arXiv:1409.0575).
    """
    folder = first_folder("imagenet", root, _FOLDERS, "train")
    train = photo_folder(folder / "train", SIZE, name="imagenet/train")
    val = folder / "val"
    if not val.is_dir():
        raise ValueError(f"imagenet: {val} not found; it holds the images to test on.")
    lists = [place / name for place in (folder, folder.parent, val) for name in _LISTS]
    listed = next((file for file in lists if file.is_file()), None)
    if listed is not None and _is_flat(val):
        return train, _flat(val, listed, train.classes)
    return train, photo_folder(val, SIZE, classes=train.classes, name="imagenet/val")


def photo_folder(
    path: str | Path, size: int, *, classes: Sequence[str] | None = None, name: str | None = None
) -> PhotoSet:
    """List a folder with one folder of image files per class: ``photos/cat/001.jpeg``.

    Classes, hidden files and the order are those of ``from_folder``; no image is opened.

    Args:
        path: The folder.
        size: Height and width of the inputs in pixels.
        classes: Names of the class folders in the order of the labels; those of the folder when
            left out.
        name: Name in messages and results; that of the folder when left out.

    Raises:
        ValueError: If there are no images, or a class is not among ``classes``.
    """
    root = Path(path).expanduser()
    found, names = class_files(root, classes)
    files, labels = [], []
    for each in sorted(found):
        inside = [os.fsencode(os.path.relpath(file, root)) for file in found.pop(each)]
        labels.append(np.full(len(inside), names.index(each)))
        files.append(np.array(inside, np.bytes_))
    return _made(root, np.concatenate(files), np.concatenate(labels), names, name, size)


def _is_flat(folder: Path) -> bool:
    """Whether a folder has image files that are not in class folders: at its top, or in images/."""
    inner = [each for each in folder.iterdir() if each.is_dir() and each.name[:1] != "."]
    return not inner or [each.name for each in inner] == ["images"]


def _flat(folder: Path, listed: Path, classes: tuple[str, ...]) -> PhotoSet:
    """Read a folder of images whose classes a file lists, one image a line.

    A line begins with the name of the image, with or without its suffix, then after a comma, tab
    or blanks the name of its class folder, or its number in their sorted order, from 0. What
    follows is ignored. A first line that begins with "ImageId," is ignored.
    """
    numbers = {name: label for label, name in enumerate(classes)}
    known = {str(label): label for label in range(len(classes))} | numbers
    labels: dict[str, int] = {}
    for number, line in enumerate(listed.read_text(encoding="utf-8").splitlines(), 1):
        words = re.split(r"[,\s]+", line.strip())
        if not line.strip() or (number == 1 and line.startswith(_HEADER)):
            continue
        if len(words) < 2 or words[1] not in known:
            raise ValueError(
                f"{listed}: line {number}: the name of an image and its class, a folder of train "
                f"or its number 0 .. {len(classes) - 1}, got {line[:60]!r}."
            )
        labels[_stem(words[0])] = known[words[1]]
    paths = image_files(folder)
    if not paths:
        raise ValueError(f"{folder}: no images.")
    unlabelled = next((path for path in paths if _stem(path) not in labels), None)
    if unlabelled is not None:
        raise ValueError(f"{unlabelled}: {listed} has no line for it; add one, or remove it.")
    files = np.array([os.fsencode(os.path.relpath(path, folder)) for path in paths], np.bytes_)
    found = np.array([labels[_stem(path)] for path in paths])
    order = np.argsort(found, kind="stable")  # by class, as of class folders
    return _made(folder, files[order], found[order], classes, "imagenet/val", SIZE)


def _stem(path: str) -> str:
    return Path(path).stem


def _made(
    root: Path,
    files: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    name: str | None,
    size: int,
) -> PhotoSet:
    pillow(root)  # now, and not after an epoch in a worker
    made = PhotoSet(
        torch.from_numpy(labels),
        len(classes),
        name or root.resolve().name,
        classes=classes,
        root=root,
        files=files,
        size=size,
    )
    mixed = mixed_order(made)
    assert isinstance(mixed, PhotoSet)
    return mixed

"""from_folder(): labelled images from a folder that has one folder of image files per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spikeguard.data.images import ImageSet
from spikeguard.data.stratified import mixed_order

__all__ = ["class_files", "from_folder", "has_images", "image_files", "pillow"]

_SHOWN = 10  # names of classes in a message
_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


def from_folder(
    path: str | Path, *, classes: Sequence[str] | None = None, name: str | None = None
) -> ImageSet:
    """Read a folder with one folder of images per class: ``photos/cat/001.png``.

    The classes are numbered in the order of their sorted names, as in torchvision's
    ``ImageFolder``. The images have a fixed order in which the first N, for every N, have the class
    proportions of all. Grey images have one channel, all others three. Hidden files and files that
    are no images are ignored. Needs Pillow.

    Args:
        path: The folder.
        classes: Names of the class folders in the order of the labels, some of which may be
            missing; those of the folder when left out.
        name: Name in messages and results; that of the folder when left out.

    Returns:
        The images as uint8 [N, C, H, W], with the class names.

    Raises:
        ValueError: If there are no images, one cannot be read, or two differ in size or channels.
    """
    root = Path(path).expanduser()
    found, names = class_files(root, classes)
    files = [(Path(file), names.index(each)) for each in sorted(found) for file in found[each]]
    library = pillow(root)
    first = _pixels(library, files[0][0])
    images = np.empty((len(files), *first.shape), np.uint8)
    for place, (file, _) in enumerate(files):
        image = _pixels(library, file)
        if image.shape != first.shape:
            raise ValueError(_difference(file, image.shape, files[0][0], first.shape))
        images[place] = image
    pixels = torch.from_numpy(images).movedim(3, 1).contiguous()
    labels = torch.tensor([label for _, label in files])
    found_images = ImageSet(pixels, labels, len(names), name or root.name, classes=names)
    return mixed_order(found_images)


def has_images(folder: Path) -> bool:
    """Whether a folder has an image file, at any depth."""
    return next(_images(folder), None) is not None


def class_files(
    root: Path, classes: Sequence[str] | None = None
) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """List a folder with one folder of images per class.

    Args:
        root: The folder.
        classes: Names of the class folders in the order of the labels, some of which may be
            missing; those of the folder, sorted, when left out.

    Returns:
        The sorted paths of the image files of each class, and the names of the classes.

    Raises:
        ValueError: If there is no such folder, it holds no images, or a class that is not among
            ``classes``.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder.")
    folders = [each for each in root.iterdir() if each.is_dir() and not each.name.startswith(".")]
    found = {folder.name: image_files(folder) for folder in folders}
    if not any(found.values()):
        raise ValueError(
            f"{root}: no images by class; it needs a folder for each class, with "
            f"{', '.join(sorted(_SUFFIXES))} files in it, such as {root.name}/cat/001.png."
        )
    empty = sorted(name for name, files in found.items() if not files)
    if empty:
        raise ValueError(f"{root / empty[0]}: no images in this class folder; remove it.")
    names = tuple(sorted(found)) if classes is None else tuple(classes)
    unknown = sorted(found.keys() - set(names))
    if unknown:
        raise ValueError(
            f"{root}: {unknown[0]} is no class of the training images, which are "
            f"{_some(names)}; rename or remove the folder."
        )
    return found, names


def _some(names: Sequence[str]) -> str:
    """List names, the first ones of many."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"


def image_files(folder: Path) -> list[str]:
    """Return the paths of the image files of a folder, at any depth, sorted as text."""
    return sorted(_images(folder))


def _images(folder: Path) -> Iterator[str]:
    for inner, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for each in names:
            if not each.startswith(".") and os.path.splitext(each)[1].lower() in _SUFFIXES:  # noqa: PTH122 - a million names
                yield os.path.join(inner, each)  # noqa: PTH118 - sorted as text


def pillow(where: Path) -> ModuleType:
    """Return the module ``PIL.Image``.

    Raises:
        ValueError: If Pillow is not installed; the message names ``where``.
    """
    try:
        import PIL.Image
    except ImportError as error:
        raise ValueError(
            f"{where}: reading image files needs Pillow; run pip install 'spikeguard[images]', or "
            "save the images as arrays with np.savez."
        ) from error
    return PIL.Image


def _pixels(library: ModuleType, file: Path) -> NDArray[np.uint8]:
    """Return one image as uint8 [H, W, C]."""
    try:
        with library.open(file) as image:
            image.load()
            flat = opaque(image, str(file))
            return np.atleast_3d(np.asarray(flat.convert("L" if flat.mode in "1L" else "RGB")))
    except ValueError as error:
        if str(error).startswith(str(file)):
            raise
        raise _unreadable(file, error) from error
    except (OSError, SyntaxError, EOFError, library.DecompressionBombError) as error:
        raise _unreadable(file, error) from error


def opaque(image: Any, name: str) -> Any:
    """Return an image without its alpha channel; reject transparency and more than 8 bits.

    Args:
        image: A Pillow image.
        name: What the message calls it.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(
            f"{name}: pixels of mode {image.mode} have more than 8 bits; save them as arrays in "
            "[0, 1] with np.savez, or as 8-bit images."
        )
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            raise ValueError(
                f"{name}: has transparent pixels, whose colour depends on the viewer; save it "
                "without, such as Image.open(f).convert('RGB').save(f)."
            )
        return image.convert("L" if image.mode == "LA" else "RGB")
    return image


def _difference(file: Path, shape: tuple[int, ...], first: Path, wanted: tuple[int, ...]) -> str:
    """Say how an image differs from the first one, and what to do."""
    if shape[:2] != wanted[:2]:
        size = f"{wanted[1]}, {wanted[0]}"
        return (
            f"{file}: {shape[1]} x {shape[0]} pixels, but {first.name} has {wanted[1]} x "
            f"{wanted[0]}; resize all images to one size, such as "
            f"Image.open(f).resize(({size})).save(f)."
        )
    kind = {1: "grey", 3: "in colour"}
    mode = "RGB" if wanted[2] == 3 else "L"
    return (
        f"{file}: it is {kind[shape[2]]}, but {first.name} is {kind[wanted[2]]}; convert it, such "
        f"as Image.open(f).convert('{mode}').save(f)."
    )


def _unreadable(file: Path, error: BaseException) -> ValueError:
    line = str(error).partition("\n")[0]
    return ValueError(f"{file}: not an image that Pillow can read ({line}); replace or remove it.")

"""Names of image, label and class columns in npz files, mappings and rows, and their parts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "CLASSES",
    "PARTS",
    "Columns",
    "is_column",
    "one_column",
    "part_columns",
    "part_folders",
    "part_of",
]

PARTS = ("train", "val", "test")
CLASSES = ("classes", "class_names")
_IMAGES = ("x", "images", "image", "img", "pixel_values")
_LABELS = ("y", "labels", "label", "targets", "target")
_ALIASES = {"validation": "val", "valid": "val"}

Columns = tuple[str, str]  # the names of the images and of the labels


def part_of(name: str) -> str | None:
    """Return "train", "val" or "test" for the name of a part, None for another name."""
    name = _ALIASES.get(name.lower(), name.lower())
    return name if name in PARTS else None


def part_folders(path: Path, parts: Iterable[Path], others: Iterable[Path]) -> dict[str, Path]:
    """Return folders by the part that each is for, in the order train, val, test.

    Args:
        path: The folder that they are in, for the message.
        parts: Folders of class folders; those without the name of a part count as ``others``.
        others: Further folders with data.

    Raises:
        ValueError: If two folders are for one part, or there are parts and another folder.
    """
    parts = list(parts)
    named = {part: each for each in parts if (part := part_of(each.name)) is not None}
    used = list(named.values())
    other = next((each for each in (*parts, *others) if each not in used), None)
    if used and other is not None:
        raise ValueError(
            f"{path}: holds {', '.join(each.name for each in used)} and also {other.name}; move "
            f"{other.name} away, or name one folder of classes."
        )
    return {part: named[part] for part in PARTS if part in named}


def is_column(name: str) -> bool:
    """Whether a name is that of images, labels or classes, of all or of a part."""
    return name in CLASSES or _split(name) is not None


def part_columns(names: Iterable[str], where: str) -> dict[str | None, Columns]:
    """Return the columns of each part: ``x_train`` and ``y_train``, ``train_images`` and so on.

    Args:
        names: All names.
        where: Name of the data, for messages.

    Returns:
        Names of images and labels by part; the key None is for columns that name no part.

    Raises:
        ValueError: If there are no images, images without labels, or two columns of one kind.
    """
    names = list(names)
    found: dict[str | None, dict[str, str]] = {}
    for name in names:
        split = _split(name)
        if split is None:
            continue
        kind, part = split
        if kind in found.setdefault(part, {}):
            raise ValueError(
                f"{where}: {found[part][kind]!r} and {name!r} both name the {kind}; keep one."
            )
        found[part][kind] = name
    if not found:
        held = ", ".join(map(repr, names[:6])) or "nothing"
        raise ValueError(
            f"{where}: holds {held}; name the images x and the labels y, and those of the parts "
            "x_train, y_train, x_val, y_val, x_test, y_test."
        )
    for part, columns in found.items():
        for kind, other in (("images", "labels"), ("labels", "images")):
            if kind not in columns:
                missing = ("x" if kind == "images" else "y") + (f"_{part}" if part else "")
                raise ValueError(f"{where}: {columns[other]!r} needs {kind} {missing!r} beside it.")
    return {part: (columns["images"], columns["labels"]) for part, columns in found.items()}


def one_column(names: Iterable[str], where: str) -> Columns:
    """Return the columns of data without parts.

    Raises:
        ValueError: As ``part_columns``, or if the columns name parts.
    """
    found = part_columns(names, where)
    if set(found) != {None}:
        part = next(part for part in found if part is not None)
        raise ValueError(f"{where}: has parts; pass one of them, such as {found[part]}.")
    return found[None]


def _split(name: str) -> tuple[str, str | None] | None:
    """Return kind and part of a column, ("images", "train") for "x_train"; None for another."""
    for part, rest in (
        (None, name),
        (name.rpartition("_")[2], name.rpartition("_")[0]),
        (name.partition("_")[0], name.partition("_")[2]),
    ):
        known = None if part is None else part_of(part)
        if part is not None and known is None:
            continue
        for kind, aliases in (("images", _IMAGES), ("labels", _LABELS)):
            if rest.lower() in aliases:
                return kind, known
    return None

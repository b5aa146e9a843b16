"""Folders and files of event data sets: where they are looked for, and how they are opened."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from spikeguard.data.by_hand import BY_HAND
from spikeguard.data.events.recording import BadRecording

__all__ = ["files_of", "first_folder", "number_of", "opened"]


def first_folder(name: str, root: Path, folders: Sequence[str], mark: str) -> Path:
    """Return the first folder under ``root`` that has the file or folder ``mark``.

    Raises:
        ValueError: If there is none; the message says where to get the data set.
    """
    places = [root / folder for folder in folders]
    for place in places:
        if (place / mark).exists():
            return place
    looked = ", ".join(str(place) for place in places)
    raise ValueError(f"{name}: {mark} not found in {looked}; {BY_HAND[name]}")


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file of recordings; BadRecording where it cannot be read."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise BadRecording(f"{path}: cannot be read: {error.strerror or error}.") from error


def files_of(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files of a folder in the order of the numbers in their names, 9 before 10.

    Hidden files are left out, such as the ``._name`` that archives of some systems contain.
    """
    if not folder.is_dir():
        return []
    found = (each for each in folder.iterdir() if not each.name.startswith("."))
    return sorted((each for each in found if each.suffix.lower() in suffixes), key=number_of)


def number_of(path: Path) -> tuple[int, str]:
    """Return the last number in a file's name, and the name; -1 without a number."""
    numbers = re.findall(r"\d+", path.stem)
    return (int(numbers[-1]) if numbers else -1, path.name)

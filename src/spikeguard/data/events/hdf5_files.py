"""HDF5 files, which need the optional package h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeguard.data.events.recording import BadRecording

__all__ = ["HDF5", "opened_hdf5"]

HDF5 = (".h5", ".hdf5")


@contextmanager
def opened_hdf5(path: Path) -> Iterator[dict[str, Any]]:
    """Open the datasets at the top of a file, by name; they are read when they are sliced.

    Raises:
        BadRecording: If h5py is not installed, or the file is damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise BadRecording(
            f"{path}: HDF5 needs h5py; install it with 'pip install spikeguard[hdf5]'."
        ) from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        said = str(error).partition("\n")[0].rstrip(".")
        raise BadRecording(f"{path}: not a whole HDF5 file ({said}).") from error
    with file:
        yield {name: file[name] for name in file if isinstance(file.get(name), h5py.Dataset)}

"""HDF5 files, which need the optional package h5py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeguard.data.events.recording import BadRecording

__all__ = ["HDF5", "opened_hdf5"]

HDF5 = (".h5", ".hdf5")
_FREE, _RATIO = 64 << 20, 100  # a file unpacks to at most 64 MiB and 100 times its size


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
        with h5py.File(path, "r") as file:
            found = {name: file[name] for name in file}
            found = {name: each for name, each in found.items() if isinstance(each, h5py.Dataset)}
            claimed = sum(each.size * each.dtype.itemsize for each in found.values())
            if claimed > _FREE + _RATIO * path.stat().st_size:
                raise OSError(f"it claims {claimed >> 20} MB")
            yield found
    except (OSError, RuntimeError, LookupError, TypeError) as error:
        said = str(error).partition("\n")[0].rstrip(".")
        raise BadRecording(f"{path}: not a whole HDF5 file ({said}).") from error

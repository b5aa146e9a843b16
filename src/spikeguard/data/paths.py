"""Locations of the data sets: one root folder, with the official folder names inside it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["data_root", "not_found"]


def data_root(root: str | Path | None = None) -> Path:
    """Return the folder of the data sets: ``root``, else ``$SPIKEGUARD_DATA``, else ``data``."""
    chosen = root if root is not None else os.environ.get("SPIKEGUARD_DATA") or "data"
    return Path(chosen).expanduser()


def not_found(name: str, file: str, folders: Sequence[Path]) -> ValueError:
    """Return the error for a missing file: its name, the folders searched, how to get it."""
    return ValueError(
        f"{name}: {file} not found in {', '.join(str(folder) for folder in folders)}; run "
        f"'spikeguard data download {name}', or set SPIKEGUARD_DATA to the folder that has it."
    )

"""On-disk store of the results: each finished case is saved at once, so a run can resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spikeguard.benchmarking.peers import versions
from spikeguard.storage.atomic_files import write_json
from spikeguard.system.environment import describe

__all__ = ["RESULTS", "Store", "identity"]

RESULTS = "bench.json"

Case = dict[str, Any]


def identity(*, quick: bool, threads: int, device: str = "cpu") -> dict[str, Any]:
    """Return the values that must be equal for two measurements to share one table."""
    described = describe(command="")
    names = ("spikeguard", "torch", "python", "commit", "platform", "cpu", "cores")
    return {
        **{name: described[name] for name in names},
        "peers": versions(),
        "threads": threads,
        "quick": quick,
        "device": device if device == "cpu" else f"{device}: {torch.cuda.get_device_name()}",
    }


class Store:
    """The cases of one benchmark, stored in ``bench.json``.

    Args:
        folder: Folder of the file; created when the first case is written.
        identity: Result of :func:`identity`; the store only resumes a benchmark with an equal one.

    Raises:
        ValueError: If the folder holds another benchmark, or a damaged file.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self._path = folder / RESULTS
        self.identity = identity
        self.cases: dict[str, Case] = {}
        if self._path.exists():
            found = self._read()
            old = found["identity"]
            changed = [name for name in identity if identity[name] != old.get(name)]
            if changed:
                name = changed[0]
                raise ValueError(
                    f"bench: {folder} holds a benchmark of another {name} ({old.get(name)}, now "
                    f"{identity[name]}); choose another --out, or remove the folder."
                )
            self.cases = found["cases"]

    def case(self, key: str, measure: Callable[[], Case]) -> Case:
        """Return a case; measure and save it unless it is stored already."""
        if key not in self.cases:
            self.cases[key] = measure()
            write_json(self._path, {"identity": self.identity, "cases": self.cases})
        return self.cases[key]

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            if not isinstance(found["identity"], dict) or not isinstance(found["cases"], dict):
                raise TypeError
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"bench: {self._path} is damaged; remove it.") from error
        return dict(found)

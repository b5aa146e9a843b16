"""Read the stored measurements of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.registry import ANALYSES
from spikeguard.storage.run_folder import MEMBRANE

__all__ = ["read_analyses"]


def read_analyses(folder: Path, weights: Mapping[str, str]) -> dict[str, Measurement]:
    """Return the measurements of a folder by file name without suffix, in the registry's order.

    Args:
        folder: ``RUN/analysis``; may be missing.
        weights: Digest of each checkpoint by name.

    Raises:
        ValueError: If a file is damaged, of another analysis or of other weights: one line that
            names it.
    """
    found = {}
    for file in sorted(folder.glob("*.npz")) if folder.is_dir() else ():
        if file.name == Path(MEMBRANE).name:
            continue
        measured = Measurement.load(file)
        if measured.analysis not in ANALYSES:
            raise ValueError(
                f"{file}: is of an analysis {measured.analysis!r} that this version does not know; "
                "move it away."
            )
        own = measured.identity.get("weights")
        if own and weights and own not in weights.values():
            raise ValueError(f"{file}: is of other weights; delete it and analyse again.")
        found[file.stem] = measured
    order = {name: place for place, name in enumerate(ANALYSES)}
    return dict(sorted(found.items(), key=lambda each: (order[each[1].analysis], each[0])))

"""Read the stored certificates of a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spikeguard.certification.result import Certification
from spikeguard.reporting.readers.json_files import read_json, reading

__all__ = ["read_certificates"]


def read_certificates(folder: Path, weights: Mapping[str, str]) -> tuple[Certification, ...]:
    """Return the certificates of a folder, in the order of their file names.

    Args:
        folder: ``RUN/certificates``; may be missing.
        weights: Digest of each checkpoint by name.

    Raises:
        ValueError: If a file is damaged or of other weights: one line that names it.
    """
    found = []
    for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
        card = read_json(file)
        with reading(file):
            result = Certification.from_dict(card)
        own = result.identity.get("weights")
        if own and weights and own not in weights.values():
            raise ValueError(f"{file}: is of other weights; move it away and certify again.")
        if result.records:
            found.append(result)
    return tuple(found)

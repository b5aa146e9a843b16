"""The text header of AEDAT files, the recordings of jAER and cAER."""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path

from spikeguard.data.events.recording import BadRecording

__all__ = ["skip_header"]

_LINE = 4096  # bytes; no line of a header is longer
_LINES = 10_000
_END = b"#!END-HEADER"


def skip_header(file: BufferedReader, path: Path, version: str) -> int:
    """Return the position of the first byte after the header lines, which start with "#".

    Raises:
        BadRecording: If the first line names another version, or format 3.1 is not raw.
    """
    wanted = f"#!AER-DAT{version}"
    file.seek(0)
    first = file.readline(_LINE)
    if not first.startswith(wanted.encode()):
        found = first[:24].decode("ascii", "replace").strip() or "an empty file"
        raise BadRecording(f"{path}: its first line is {wanted}, got {found!r}.")
    start = file.tell()
    for _ in range(_LINES):
        line = file.readline(_LINE)
        if not line.startswith(b"#") or not line.endswith(b"\n"):
            return start
        start = file.tell()
        if line.startswith(b"#Format:") and line.split(b":", 1)[1].strip() != b"RAW":
            said = line.decode("ascii", "replace").strip()
            raise BadRecording(f"{path}: {said!r}; only the format RAW is read.")
        if line.startswith(_END):
            return start
    raise BadRecording(f"{path}: its header does not end.")

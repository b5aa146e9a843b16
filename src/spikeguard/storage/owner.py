"""Owner: the process that holds a folder or a trial, by host, number and start time."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["Owner"]


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        pid: Its number on its host.
        host: Name of the host.
        started: Its start time in the kernel's ticks; None where it is not known.
    """

    pid: int | None = None
    host: str | None = None
    started: str | None = None

    @classmethod
    def this_process(cls) -> Owner:
        """Return the present process."""
        pid = os.getpid()
        return cls(pid, platform.node(), _state(pid)[1])

    @classmethod
    def of(cls, card: Any) -> Owner:
        """Return the owner in plain data; an unknown one where the data are of another kind."""
        if not isinstance(card, dict):
            return cls()
        return cls(card.get("pid"), card.get("host"), card.get("started"))

    def to_dict(self) -> dict[str, Any]:
        """Return the owner as plain data."""
        return asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether it is a process of this host."""
        return self.host == platform.node()

    def runs(self) -> bool:
        """Whether a process of this host runs; a later one of the same number does not count."""
        if not isinstance(self.pid, int) or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            pass
        state, started = _state(self.pid)
        return state != "Z" and self.started == started  # a zombie was killed


def _state(pid: int) -> tuple[str | None, str | None]:
    """Return state and start time, in the kernel's ticks, of a process; None if not known."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None, None
    fields = text.rpartition(")")[2].split()
    return fields[0], fields[19]

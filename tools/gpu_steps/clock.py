"""The clock of a check: commands that end in time, and shares of what is left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Clock", "Ended", "run_in_time"]

_GRACE = 5.0  # seconds between asking a process to end and killing it


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: Its exit code; None if it was stopped.
        seconds: Time it ran.
    """

    code: int | None
    seconds: float


class Clock:
    """Time that is left of a fixed total.

    Args:
        seconds: The total, > 0, from now on.
        reserve: Seconds kept for writing the results.
    """

    def __init__(self, seconds: float, reserve: float = 15.0):
        self.end = time.monotonic() + max(0.0, seconds - reserve)

    @property
    def left(self) -> float:
        """Seconds that are left, >= 0."""
        return max(0.0, self.end - time.monotonic())

    def share(self, part: float, of: float) -> float:
        """Return the seconds of a part: its share of what is left, ``part / of``."""
        return self.left * part / of


def run_in_time(
    command: Sequence[str], seconds: float, *, log: Path, env: Mapping[str, str], cwd: Path
) -> Ended:
    """Run a command, and end it and all it started when its time is over.

    Its output is appended to ``log``. Ctrl-C and SIGTERM of this process end it too.
    """
    started = time.monotonic()
    with log.open("ab") as out:
        out.write(f"$ {' '.join(command)}\n".encode())
        out.flush()
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=cwd, env=dict(env), start_new_session=True
        )
        code: int | None = None
        try:
            code = process.wait(timeout=max(0.1, seconds))
        except subprocess.TimeoutExpired:
            out.write(f"stopped after {seconds:.0f} s: its time was over\n".encode())
        finally:
            _end(process)
    return Ended(code, time.monotonic() - started)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process group of a command, whether or not the command itself is still there."""
    for sign, grace in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            break
        try:
            process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            continue
    process.wait()

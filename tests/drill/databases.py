"""A drill on PostgreSQL: the server of a sweep is killed, comes back, and the sweep goes on."""

from __future__ import annotations

import random
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.drill.runs import TINY, content, start
from tests.toys.postgres import crashing_postgres

__all__ = ["killed_database"]

_LIMIT = 300.0  # seconds for one command
_QUEUE = ("study.log", "study.lock", "queue.lock")  # not results


def killed_database(folder: Callable[[], Path], seconds: float, number: int) -> str:
    """Kill the server at a random point of a sweep; return what is wrong, "skipped", or "".

    Args:
        folder: Makes a new folder.
        seconds: About how long the sweep takes.
        number: Names the point.
    """
    alone, path = folder(), folder()
    sweep = ["sweep", "demo/vanilla", *TINY, "neuron.v_th=0.5,1,1.5", "--maximise", "accuracy"]
    try:
        with crashing_postgres() as server:
            shared = [*sweep, "--out", str(path), "--storage", server.url]
            process = start(shared)
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds * random.Random(f"database {number}").uniform(0.3, 0.95))
            server.stop(signal.SIGKILL)
            _, said = process.communicate(timeout=_LIMIT)
            lines = [line for line in said.splitlines() if line.startswith("spikeguard sweep: ")]
            told = len(lines) == 1 and "--storage" in lines[0]
            if "Traceback" in said or process.returncode != (2 if told else 0):
                return f"{process.returncode}: {said[-300:]}"
            server.start()
            for words in (shared, [*sweep, "--out", str(alone)]):
                again = start(words)
                _, said = again.communicate(timeout=_LIMIT)
                if again.returncode:
                    return f"run again, it ended with {again.returncode}: {said[-300:]}"
    except pytest.skip.Exception:
        return "skipped"
    left, wanted = (_results(each) for each in (path, alone))
    other = sorted(
        name for name in left.keys() | wanted.keys() if left.get(name) != wanted.get(name)
    )
    return f"silently wrong: {', '.join(other)}" if other else ""


def _results(folder: Path) -> dict[str, str]:
    return {name: what for name, what in content(folder).items() if name not in _QUEUE}

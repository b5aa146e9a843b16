"""Environment record of a run: versions, hardware, commit, command, seed; no personal data."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["code_version", "describe"]


def describe(command: str | Sequence[str] | None = None, seed: int | None = None) -> dict[str, Any]:
    """Return the software, hardware and command line as JSON values.

    Args:
        command: The command line, as text or as a list of words; None is that of the running
            program. The home folder is replaced by ``~``.
        seed: The run's seed, or None.

    Returns:
        ``spikeguard``, ``torch``, ``numpy``, ``python``: versions; ``commit``: commit of the
        checkout that SpikeGuard runs from, followed by "+changes" if tracked files differ, or None;
        ``platform``, ``cpu``, ``cores``, ``threads``, ``gpu`` (name or None); ``command``,
        ``seed``, ``date`` (UTC, ISO 8601).
    """
    import numpy as np
    import torch

    if command is None:
        command = [Path(sys.argv[0]).name, *sys.argv[1:]]
    text = command if isinstance(command, str) else shlex.join(command)
    return {
        "spikeguard": version("spikeguard"),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": _cores(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": _without_home(text),
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _without_home(text: str) -> str:
    """Write the home folder as ~, where there is one of its own."""
    try:
        home = str(Path.home())
    except RuntimeError:  # neither $HOME nor an entry of this user
        return text
    return text.replace(home, "~") if len(home) > 1 else text


@cache
def code_version() -> str:
    """Return the version of SpikeGuard, with the commit of its checkout if it runs from one."""
    commit = _commit()
    return version("spikeguard") + (f" ({commit})" if commit else "")


def _cores() -> int | None:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _cpu() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            label, _, name = line.partition(":")
            if label.strip() == "model name" and name.strip():
                return name.strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the checkout that tracks this file, or None."""
    here = Path(__file__)
    package = here.parents[1]
    if _git(package, "ls-files", "--error-unmatch", str(here.relative_to(package))) is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changed = _git(package, "status", "--porcelain", "--untracked-files=no", ".")
    return f"{commit}+changes" if commit and changed else commit


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # git is not installed or does not respond
        return None
    return done.stdout.strip() if done.returncode == 0 else None

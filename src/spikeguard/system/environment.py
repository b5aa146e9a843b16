"""What a run was made with: versions, machine, commit, seed. Nothing that names a person."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["describe"]


def describe(command: str | Sequence[str] | None = None, seed: int | None = None) -> dict[str, Any]:
    """Describe software, machine and call, ready for JSON.

    Args:
        command: The command line, as text or in words; None takes the running program's. The home
            folder is written as ``~``.
        seed: The run's seed, where there is one.

    Returns:
        ``spikeguard``, ``torch``, ``numpy``, ``python``: versions; ``commit``: of the checkout that
        SpikeGuard runs from, ending in "+changes" where files differ, or None; ``platform``,
        ``cpu``, ``cores``, ``threads``, ``gpu`` (name or None); ``command``, ``seed``, ``date``
        (UTC, ISO 8601).
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
        "command": text.replace(str(Path.home()), "~"),
        "seed": seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cores() -> int | None:
    """Cores this process may use, not those the machine has."""
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
    """Return the commit of the checkout that tracks this very file; None when there is none."""
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
    except (OSError, subprocess.TimeoutExpired):  # no git on this machine: no commit to name
        return None
    return done.stdout.strip() if done.returncode == 0 else None

"""Commands on a network that trains in seconds, and what a run folder holds, without times."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikeguard.storage.folder_lock import LOCK
from spikeguard.storage.members import RANKS

__all__ = ["JOBS", "TINY", "Job", "command", "content", "start"]

TINY = [
    *("data.train_limit=300", "data.test_limit=24", "model.T=2", "model.width=4"),
    *("model.hidden=16", "train.epochs=5", "train.checkpoint_seconds=0.05"),
    *("evaluate.suite=quick", "evaluate.eps=0.1", "evaluate.limit=", "evaluate.batch_size=4"),
]
_TIMES = {"seconds", "cpu_s", "checksum", "files", "date", "command", "took", "train_seconds"}
_NOT_RESULTS = {"environment.json", LOCK, "report.html", "table.md"}


@dataclass(frozen=True)
class Job:
    """A command that is disturbed.

    Attributes:
        words: The command line; FOLDER stands for the run folder.
        again: Further words when it is run again.
        trained: Whether the folder holds a finished training before the command.
        ranks: Number of processes that torchrun starts; 1 is the command itself.
    """

    words: tuple[str, ...]
    again: tuple[str, ...] = ()
    trained: bool = True
    ranks: int = 1


_ATTACK = ("attack", "FOLDER", "--suite", "quick,baseline", "--eps", "0.05,0.1")
JOBS = {
    "train": Job(("train", "demo/vanilla", *TINY, "--out", "FOLDER"), ("--resume",), False),
    "train, 2 ranks": Job(
        ("train", "demo/tgo", *TINY, "--out", "FOLDER"), ("--resume",), False, ranks=2
    ),
    "attack": Job(_ATTACK),
    "attack --jobs 2": Job((*_ATTACK, "--jobs", "2")),
    "cascade": Job((*_ATTACK, "--cascade")),
    "audit": Job(("audit", "FOLDER", "--quick", "--limit", "6")),
    "reproduce": Job(
        (
            *("reproduce", "demo", *TINY, "--only", "demo/vanilla,demo/tgo", "--seeds", "0"),
            *("--jobs", "2", "--out", "FOLDER"),
        ),
        (),
        False,
    ),
}


def command(job: Job, folder: Path, *, again: bool = False) -> list[str]:
    """Return the command line of a job on a folder."""
    words = [*job.words, *(job.again if again else ())]
    return [str(folder) if word == "FOLDER" else word for word in words]


def start(
    words: list[str],
    variables: dict[str, str] | None = None,
    *,
    ranks: int = 1,
    **options: Any,
) -> subprocess.Popen[str]:
    """Start a command as a process of one thread, or as several under torchrun.

    Args:
        words: Words of the command.
        variables: Further environment variables.
        ranks: Number of processes.
        options: Passed on to Popen.
    """
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from spikeguard.cli import main; sys.exit(main())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | (variables or {})
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    how = ["-c", code] if ranks == 1 else [*launcher, "-m", "spikeguard"]
    words = [sys.executable, *how, *words]
    return subprocess.Popen(words, env=environment, **pipes, **options)  # type: ignore[call-overload,no-any-return]


def content(folder: Path) -> dict[str, str]:
    """Return a digest of every result in a folder: weights, outcomes, numbers, no durations."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        of_ranks = file.parent.name == RANKS  # logs and claims
        kept = file.name not in _NOT_RESULTS and not name.endswith(".tmp") and not of_ranks
        if file.is_file() and kept:
            found[name] = hashlib.sha256(_without_times(file).encode()).hexdigest()
    return found


def _without_times(file: Path) -> str:
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as stored:
            return str([(name, stored[name].tobytes().hex()) for name in sorted(stored.files)])
    if file.suffix == ".json":
        return json.dumps(_plain(json.loads(file.read_text())), sort_keys=True)
    if file.suffix == ".jsonl":
        lines = file.read_text().splitlines()
        return json.dumps([_plain(json.loads(line)) for line in lines], sort_keys=True)
    return file.read_bytes().hex()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items() if name not in _TIMES}
    return [_plain(item) for item in value] if isinstance(value, list) else value

"""SLURM batch scripts and torchrun commands, as text; nothing is run here."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from spikeguard.cli.command_check import SHARED, WORKERS
from spikeguard.config.errors import ConfigError

__all__ = ["PORT", "Resources", "slurm_script", "torchrun_line"]

PORT = 29500  # of the rendezvous, where none is named
_PATIENCE = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"  # seconds until torchrun kills ranks that save
_TIME = re.compile(r"\d+|(\d+-)?\d{1,2}:\d{2}(:\d{2})?|\d+-\d{1,2}")
_NAME = re.compile(r"[\w.,:/+=@-]+")
_HOST = re.compile(r"[\w.-]+(:\d{1,5})?")


@dataclass(frozen=True)
class Resources:
    """What a job asks SLURM for.

    Args:
        nodes: Number of nodes, >= 1.
        tasks: Ranks on each node, >= 1.
        cpus: CPU cores of each rank, >= 1.
        gpus: GPUs of each node, >= 0.
        time: Limit, as SLURM writes it: minutes, H:MM:SS or D-H:MM:SS.
        partition: Partition, or None for the default.
        account: Account, or None for the default.
        array: Number of array tasks; 0 is one job.
        name: Name of the job.
        warning: Seconds before the end of the time at which the job is told to save and stop.
        requeue: Whether a job that was told so, or whose node failed, is queued again.

    Raises:
        ConfigError: If one is out of range or cannot stand in a script.
    """

    nodes: int = 1
    tasks: int = 1
    cpus: int = 1
    gpus: int = 0
    time: str = "24:00:00"
    partition: str | None = None
    account: str | None = None
    array: int = 0
    name: str = "spikeguard"
    warning: int = 120
    requeue: bool = True

    def __post_init__(self) -> None:
        least = {"nodes": 1, "tasks": 1, "cpus": 1, "gpus": 0, "array": 0, "warning": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"--{name}: a whole number >= {low}, got {getattr(self, name)}.")
        if not _TIME.fullmatch(self.time):
            raise ConfigError(f"--time: minutes, H:MM:SS or D-H:MM:SS, got {self.time!r}.")
        seconds = _seconds(self.time)
        if self.warning >= min(seconds, 65536):  # the largest number that SLURM takes
            raise ConfigError(
                f"--warning: seconds before the end of --time {self.time} and below 65536, got "
                f"{self.warning}."
            )
        for name in ("partition", "account", "name"):
            text = getattr(self, name)
            if text is not None and not _NAME.fullmatch(text):
                raise ConfigError(f"--{name}: letters, digits and . , : / + = @ -, got {text!r}.")


def torchrun_line(
    command: Sequence[str], *, nodes: int = 1, processes: int = 1, rendezvous: str | None = None
) -> str:
    """Return the command line that starts a command as ranks of torchrun.

    Args:
        command: The words after ``spikeguard``.
        nodes: Number of nodes; the line is run on each of them.
        processes: Ranks on each node.
        rendezvous: HOST or HOST:PORT of one of the nodes; needed for several.

    Raises:
        ConfigError: If a number is below 1, or several nodes have no rendezvous.
    """
    for name, value in (("nodes", nodes), ("processes", processes)):
        if value < 1:
            raise ConfigError(f"--{name}: a whole number >= 1, got {value}.")
    if nodes == 1 and rendezvous is None:
        where = ["--standalone"]
    elif rendezvous is None or not _HOST.fullmatch(rendezvous):
        raise ConfigError(
            f"--rendezvous: HOST or HOST:PORT of the first of {nodes} nodes, got {rendezvous!r}."
        )
    else:
        address = rendezvous if ":" in rendezvous else f"{rendezvous}:{PORT}"
        where = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={address}"]
    words = ["torchrun", *where, f"--nproc-per-node={processes}", "-m", "spikeguard", *command]
    return f"{_PATIENCE}=600 {shlex.join(words)}"


def slurm_script(command: Sequence[str], of: Resources, container: str | None = None) -> str:
    """Return the batch script that runs a command on a SLURM cluster.

    Args:
        command: The words after ``spikeguard``; checked before.
        of: What the job asks for.
        container: Image file of Apptainer in which the command runs; None for this Python.

    Raises:
        ConfigError: If the command cannot run in so many processes.
    """
    ranks, kind = of.nodes * of.tasks, command[0]
    if ranks > 1 and kind not in SHARED:
        raise ConfigError(f"{kind} runs in one process a task; leave out --nodes and --tasks.")
    if of.array and kind not in ("attack", *WORKERS):
        raise ConfigError(
            f"--array: for attack, {' and '.join(WORKERS)}, got {kind}; for train use --nodes and "
            "--tasks."
        )
    if kind == "train" and 0 < of.gpus < of.tasks:
        raise ConfigError(
            f"--gpus: each rank of train needs a GPU of its own, got {of.gpus} for {of.tasks} "
            "ranks on a node; 0 trains on the CPU."
        )
    by_torchrun = kind == "train" and ranks > 1
    words = [*command, *(["--resume"] if kind == "train" and "--resume" not in command else [])]
    tasks, cpus = (1, of.cpus * of.tasks) if by_torchrun else (of.tasks, of.cpus)
    return "\n".join(
        [
            "#!/bin/bash",
            *(f"#SBATCH --{line}" for line in _head(of, tasks, cpus)),
            f"export OMP_NUM_THREADS={of.cpus}",
            _TRAP.strip(),
            *([_RENDEZVOUS.strip(), f"export {_PATIENCE}={of.warning}"] if by_torchrun else []),
            f"srun --cpus-per-task={cpus} --kill-on-bad-exit={int(kind == 'train')} \\",
            f"  {_program(of, container, by_torchrun)} \\",
            f"  {shlex.join(words)} &",
            (_WAIT + (_REQUEUE if of.requeue else "")).strip(),
            'exit "$code"',
            "",
        ]
    )


def _seconds(limit: str) -> int:
    """Return the seconds of a time limit as SLURM writes it."""
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:  # D-H, D-H:MM or D-H:MM:SS
        hours, minutes, seconds = [*parts, 0, 0][:3]
        return ((int(days) * 24 + hours) * 60 + minutes) * 60 + seconds
    if len(parts) < 3:  # M or M:SS
        minutes, seconds = [*parts, 0][:2]
        return minutes * 60 + seconds
    return (parts[0] * 60 + parts[1]) * 60 + parts[2]


def _head(of: Resources, tasks: int, cpus: int) -> list[str]:
    """Return the options of sbatch."""
    lines = [f"job-name={of.name}", f"nodes={of.nodes}", f"ntasks-per-node={tasks}"]
    lines += [f"cpus-per-task={cpus}", *([f"gpus-per-node={of.gpus}"] if of.gpus else [])]
    lines += [f"time={of.time}"]
    lines += [f"{n}={v}" for n in ("partition", "account") if (v := getattr(of, n)) is not None]
    lines += [f"array=0-{of.array - 1}"] if of.array else []
    lines += [f"output=%x-{'%A_%a' if of.array else '%j'}.out", "open-mode=append"]
    return [*lines, "requeue" if of.requeue else "no-requeue", f"signal=B:USR1@{of.warning}"]


def _program(of: Resources, container: str | None, by_torchrun: bool) -> str:
    """Return what srun starts, up to the words of the command."""
    start = [sys.executable]
    if container is not None:
        start = ["apptainer", "exec", *(["--nv"] if of.gpus else []), container, "python"]
    if not by_torchrun:
        return f"{shlex.join(start)} -m spikeguard"
    where = f'--nnodes={of.nodes} --rdzv-backend=c10d --rdzv-endpoint="$first:$port"'
    where += ' --rdzv-id="$SLURM_JOB_ID"'
    run = f"{shlex.join(start)} -m torch.distributed.run {where}"
    return f"{run} --nproc-per-node={of.tasks} -m spikeguard"


_TRAP = """
# Before the time ends, or the job is preempted: the ranks save their state and end.
stopped=
stop() { stopped=1; scancel --signal=TERM "$SLURM_JOB_ID"; }
trap stop USR1
"""
_RENDEZVOUS = """
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
"""
_WAIT = """
step=$!
wait "$step"
code=$?
while [ "$stopped" ] && kill -0 "$step" 2>/dev/null; do wait "$step"; code=$?; done
"""
_REQUEUE = """\
if [ "$stopped" ] && [ "$code" -ne 0 ]; then
  scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
"""

"""``spikeguard launch``: start a command as ranks of torchrun, or as a SLURM job."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spikeguard.cli.console import note, say
from spikeguard.config.errors import ConfigError

__all__ = ["slurm", "torchrun"]

Flag = Annotated[bool, Parameter(negative="")]
Command = Annotated[str, Parameter(allow_leading_hyphen=True)]


def torchrun(
    *command: Command, nodes: int = 1, processes: int = 1, rendezvous: str | None = None
) -> int:
    """Print the torchrun command line that runs a command in several processes.

    The command after -- is checked first: train or attack.

    Args:
        command: The command, as after 'spikeguard'.
        nodes: Number of nodes; the line is run on each of them.
        processes: Ranks on each node, such as its number of GPUs.
        rendezvous: HOST or HOST:PORT of the first node, where there are several; port 29500 when
            left out.
    """
    from spikeguard.cli.batch_script import torchrun_line
    from spikeguard.cli.command_check import SHARED, require_valid

    require_valid(command, max(nodes * processes, 1))
    if command[0] not in SHARED:
        raise ConfigError(f"torchrun starts {' or '.join(SHARED)}, got {command[0]}.")
    say(torchrun_line(command, nodes=nodes, processes=processes, rendezvous=rendezvous))
    return 0


def slurm(
    *command: Command,
    nodes: int = 1,
    tasks: int = 1,
    cpus: int = 1,
    gpus: int = 0,
    time: str = "24:00:00",
    partition: str | None = None,
    account: str | None = None,
    array: int = 0,
    name: str | None = None,
    warning: int = 120,
    requeue: bool = True,
    container: Path | None = None,
    submit: Flag = False,
) -> int:
    """Print the SLURM batch script that runs a command; or submit it.

    The command after -- is checked first: train, attack, audit, sweep or map. Before its time ends
    the job saves its state, ends and is queued again; it then continues where it stopped.

    Args:
        command: The command, as after 'spikeguard'.
        nodes: Number of nodes.
        tasks: Ranks on each node, such as its number of GPUs; for train and attack.
        cpus: CPU cores of each rank.
        gpus: GPUs of each node.
        time: Time limit: minutes, H:MM:SS or D-H:MM:SS.
        partition: Partition of the cluster.
        account: Account that is charged.
        array: Number of array tasks that share the images of attack, or the points of sweep or map.
        name: Name of the job; spikeguard-COMMAND when left out.
        warning: Seconds before the end of the time, or of a preemption, at which the job saves.
        requeue: Queue the job again after that, and after the failure of a node.
        container: Apptainer image in which the command runs; this Python when left out.
        submit: Submit the script with sbatch instead of printing it.
    """
    from spikeguard.cli.batch_script import Resources, slurm_script
    from spikeguard.cli.command_check import require_valid

    require_valid(command, max(nodes * tasks, 1), resume=True)
    label = name or f"spikeguard-{command[0]}"
    wanted = Resources(
        *(nodes, tasks, cpus, gpus, time, partition, account, array, label, warning, requeue)
    )
    script = slurm_script(command, wanted, None if container is None else str(container))
    if submit:
        _submit(script)
    else:
        say(script.rstrip("\n"))
    return 0


def _submit(script: str) -> None:
    """Submit a script from the present folder.

    Raises:
        ConfigError: If there is no sbatch, or it rejects the script.
    """
    try:
        done = subprocess.run(["sbatch"], input=script, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ConfigError(
            "--submit: no sbatch on this machine; print the script and submit it on the cluster."
        ) from error
    if done.returncode:
        raise ConfigError(f"--submit: sbatch: {' '.join(done.stderr.split())}")
    say(done.stdout.strip())
    note("its output goes to the file of this job in the present folder")

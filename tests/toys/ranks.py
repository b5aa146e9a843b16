"""Ranks of a command, each a forked process with the variables of torchrun, srun or an array."""

import os
import sys
import time
from pathlib import Path

from spikeguard.cli.entry import main
from spikeguard.evaluation.result_files import PARTS
from spikeguard.evaluation.shard_queue import ShardQueue
from spikeguard.evaluation.shard_runner import ShardRunner

__all__ = ["after", "dies_at", "rank_of", "shards", "wait_for", "wait_until"]

PATIENCE = 120.0  # seconds for anything that is waited for


def rank_of(number, size, words, *, before=None, array=False):
    """Start ``spikeguard WORDS`` as one of several ranks; return its process id.

    Args:
        number: Its number.
        size: Number of ranks.
        words: The command line.
        before: Called in the process first, to change how it behaves.
        array: Whether it is a task of a SLURM array, not a rank of torchrun.
    """
    names = ("RANK", "WORLD_SIZE")
    if array:
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT")
    child = os.fork()
    if child:
        return child
    code = 99
    try:
        os.environ.update(zip(names, (str(number), str(size)), strict=True))
        for stream in (1, 2):
            file = os.open(f"{words[1]}.rank-{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(file, stream)
        sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        if before is not None:
            before()
        code = main([str(word) for word in words])
    finally:
        os._exit(code)


def wait_for(*children):
    """Wait for processes; return their exit codes, of a signal a negative one."""
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def wait_until(condition):
    """Wait until a condition holds; fail after two minutes."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)


def shards(folder):
    """Return the finished shards of all unfinished attacks in a run folder."""
    return sorted(Path(folder).glob(f"attacks/*/{PARTS}/*.npz"))


def after(condition, *, second=False):
    """Return what delays a rank's first shard, or its second, until a condition holds."""

    def change():
        real, runs = ShardQueue.run_one, []

        def run_one(queue, *words):
            if len(runs) == int(second):
                wait_until(condition)
            runs.append(queue)
            return real(queue, *words)

        ShardQueue.run_one = run_one

    return change


def dies_at(attack, signal):
    """Return what lets a rank end by a signal when it begins its n-th attack, counted from 1."""

    def change():
        real, begun = ShardRunner._attack_samples, []

        def attack_samples(runner, *words):
            begun.append(words)
            if len(begun) == attack:
                os.kill(os.getpid(), signal)
            return real(runner, *words)

        ShardRunner._attack_samples = attack_samples

    return change

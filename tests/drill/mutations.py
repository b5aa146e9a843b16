"""The mutation drill: damaged files are detected, harmless or resumed; never silently wrong.

``python -m tests.drill.mutations [--count 200] [--seed 0] [--kinds TEXT,...]`` damages every kind
of file with seeded mutations, runs the command that reads it, and prints a line for each kind. A
case is

- detected: exit code 2 (or 1 of ``--rescore``) and one line that begins with "spikeguard";
- harmless or resumed: exit code 0 and the result of the undamaged file;
- wrong: exit code 0 and another result;
- broken: a traceback, another exit code, more than 60 s of CPU or 512 MiB more memory.

The exit code is 1 if any case is wrong or broken. Every case runs in a process of its own, forked
from one that has imported everything and asked git for the version: no file of a case is read
before the fork.
"""

import argparse
import gc
import importlib
import os
import pkgutil
import resource
import signal
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import spikeguard as package
from spikeguard.cli.entry import main as spikeguard
from spikeguard.system.environment import code_version
from tests.drill.mutate import mutated
from tests.drill.subjects import SUBJECTS, data, fresh, prepare

__all__ = ["drill", "main"]

SECONDS, MEMORY = 60, 512 << 20
GREEDY = 98  # exit code of a case that used more memory
MEMORY_DISK = Path("/dev/shm")  # cases spend most of their waiting on fsync elsewhere
ON_USE = ("lightning_fabric",)  # imported by a command when it needs them: a second each time
OPTIONAL = (
    "spikeguard.__main__",
    "spikeguard.benchmarking",
    "spikeguard.runs.score_worker",
    "spikeguard.kernels.triton",
)
GOOD = ("detected", "harmless", "resumed")


def alone(action, folder, seconds=20 * SECONDS):
    """Run a function in a child process in a folder, with limits; return its exit code.

    Its output is in the files ``out`` and ``err`` beside the folder. A signal is a negative code.
    """
    out, err = (folder.parent / name for name in ("out", "err"))
    child = os.fork()
    if child == 0:
        code = 99
        try:
            for stream, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
            sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
            os.chdir(folder)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + 4 * MEMORY, used + 4 * MEMORY))
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
            signal.alarm(10 * seconds)
            code = action()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)
    _, status, spent = os.wait4(child, 0)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return GREEDY if spent.ru_maxrss * 1024 > before + MEMORY else os.waitstatus_to_exitcode(status)


def run(subject, scratch):
    """Run the command of a subject; return exit code, output, errors and, for 0, what it gave."""
    words = [*subject.words]
    if words[0] == "data":
        words += ["--data-root", "."]
    code = alone(lambda: spikeguard(words), scratch, SECONDS)
    text, errors = ((scratch.parent / name).read_text(errors="replace") for name in ("out", "err"))
    if code != 0:
        return code, errors, None
    here = Path.cwd()
    os.chdir(scratch)
    try:
        return code, errors, subject.outcome(text)
    finally:
        os.chdir(here)


def judged(subject, code, errors, found, wanted):
    """Return the class of a case and, where it is bad, why."""
    said = [line for line in errors.splitlines() if line.startswith("spikeguard")]
    if code in (1, 2) and "Traceback" not in errors and (said or code == 1):
        return "detected", ""
    if code != 0 or "Traceback" in errors:
        return "broken", f"exit code {code}: {(errors.splitlines() or ['no output'])[-1][:200]}"
    if found == wanted:
        return ("resumed" if subject.resumes else "harmless"), ""
    return "wrong", "exit code 0 and another result"


def warm_up():
    """Do once what every case would do again: import everything, ask git for the version."""
    for module in pkgutil.walk_packages(package.__path__, "spikeguard."):
        if not module.name.startswith(OPTIONAL):
            with suppress(ImportError):  # compiled kernels and optional packages
                importlib.import_module(module.name)
    for name in ON_USE:
        importlib.import_module(name)
    code_version()
    gc.freeze()


def drill(folder, *, count=200, seed=0, kinds=(), jobs=1, say=print):
    """Damage every kind of file; return the number of bad cases.

    Args:
        folder: An empty folder for the prepared runs.
        count: Mutations of each kind.
        seed: Names the mutations.
        kinds: Only kinds whose name holds one of these texts; all when empty.
        jobs: Number of processes.
        say: Called with the lines of the table.
    """
    warm_up()
    chosen = [s for s in SUBJECTS if not kinds or any(text in s.kind for text in kinds)]
    prepare(folder / "base", {subject.base for subject in chosen}, spikeguard, alone)
    children = {}
    for job in range(jobs):  # each child takes every ``jobs``-th kind
        child = os.fork()
        if child == 0:
            bad = 255
            try:
                bad = min(254, _drill(folder, chosen[job::jobs], job, count, seed, say))
            finally:
                sys.stdout.flush()
                os._exit(bad)
        children[child] = job
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _drill(folder, subjects, job, count, seed, say):
    scratch, bad = folder / f"work{job}" / "here", 0
    scratch.parent.mkdir()
    data(scratch.parent / "data")
    for subject in subjects:
        base = (scratch.parent if subject.base == "data" else folder / "base") / subject.base
        fresh(base, scratch)
        code, errors, wanted = run(subject, scratch)
        assert code == 0, f"{subject.kind}: the undamaged file: {code} {errors}"
        tally, notes = Counter(), []
        for case in range(count):
            fresh(base, scratch)
            file = scratch / subject.file
            changed, how = mutated(file.read_bytes(), f"{seed} {subject.kind} {case}")
            file.write_bytes(changed)
            kind, why = judged(subject, *run(subject, scratch), wanted)
            tally[kind] += 1
            if why:
                notes.append(f"    case {case}, {how}: {kind}: {why}")
        good = sum(tally[kind] for kind in GOOD)
        bad += count - good
        parts = ", ".join(f"{kind} {tally[kind]}" for kind in (*GOOD, "wrong", "broken"))
        say("\n".join([f"{subject.kind:<24} {good}/{count}  {parts}", *notes[:5]]), flush=True)
    return bad


def main(arguments=None):
    """Run the drill; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default="")
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args(arguments)
    kinds = [text for text in given.kinds.split(",") if text]
    place = MEMORY_DISK if os.access(MEMORY_DISK, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        bad = drill(Path(folder), count=given.count, seed=given.seed, kinds=kinds, jobs=given.jobs)
    print(f"mutations: {bad} silently wrong or broken")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())

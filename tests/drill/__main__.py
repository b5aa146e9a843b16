"""``make drill``: disturb real processes and compare what they leave with an undisturbed run.

A trial passes if the command, run again, ends with the same bits, or if the disturbed command was
refused in one line. A trial is *silently wrong* if a command returned 0 and left something else.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.drill.databases import killed_database
from tests.drill.runs import JOBS, TINY, command, content, start
from tests.toys.rank_jobs import rank_of

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_LIMIT = 300.0  # seconds for one command
_RANKS = 30.0  # seconds for the other ranks to end after one was killed


@dataclass(frozen=True)
class Trial:
    """Outcome of one trial: "passed", "failed" or "silently wrong", and why."""

    outcome: str
    why: str = ""


@dataclass(frozen=True)
class Undisturbed:
    """A job that nothing disturbed: what it left, and how long it took."""

    content: dict[str, str]
    seconds: float


class Drill:
    """The undisturbed runs, and the trials on copies of them.

    Args:
        root: Folder for all runs.
        seed: Names the points at which processes are killed.
    """

    def __init__(self, root: Path, seed: int):
        self.root, self.seed = root, seed
        self.trained = root / "trained"
        _finish(["train", "demo/vanilla", *TINY, "--out", str(self.trained)])
        self._known: dict[str, Undisturbed] = {}
        self._one = threading.Lock()

    def folder(self, name: str, trained: bool) -> Path:
        """Return a new run folder; with ``trained`` it holds the finished training."""
        path = Path(tempfile.mkdtemp(dir=self.root, prefix=name.replace(" ", "") + "-")) / "run"
        if trained:
            shutil.copytree(self.trained, path)
        return path

    def undisturbed(self, name: str) -> Undisturbed:
        """Run a job without a disturbance; once."""
        with self._one:
            if name not in self._known:
                path, began = self.folder(name, JOBS[name].trained), time.monotonic()
                _finish(command(JOBS[name], path), ranks=JOBS[name].ranks)
                self._known[name] = Undisturbed(content(path), time.monotonic() - began)
            return self._known[name]

    def compare(self, name: str, path: Path) -> Trial:
        """Run a disturbed job again and compare what it leaves."""
        words, ranks = command(JOBS[name], path, again=True), JOBS[name].ranks
        code, said = _finish(words, check=False, ranks=ranks)
        if code != 0:
            return Trial("failed", f"{name}: run again, it ended with {code}: {said}")
        left, wanted = content(path), self.undisturbed(name).content
        other = [file for file in left.keys() | wanted.keys() if left.get(file) != wanted.get(file)]
        if other:
            return Trial("silently wrong", f"{name}: {', '.join(sorted(other))} in {path}")
        return Trial("passed")

    def killed(self, name: str, number: int) -> Trial:
        """Kill a job at a random point of its duration, and run it again."""
        chance = random.Random(f"{self.seed} {name} {number}")
        path = self.folder(name, JOBS[name].trained)
        process = start(command(JOBS[name], path))
        try:
            process.wait(self.undisturbed(name).seconds * chance.uniform(0.2, 0.95))
        except subprocess.TimeoutExpired:
            process.send_signal(_SIGNALS[number % 3])
        _, said = process.communicate(timeout=_LIMIT)
        if "Traceback" in said:
            return Trial("failed", f"{name}: {said.strip().splitlines()[-1]}")
        if process.returncode in (130, 143) and "continue with: spikeguard" not in said:
            return Trial("failed", f"{name}: no word how to continue: {said}")
        return self.compare(name, path)

    def killed_rank(self, name: str, number: int) -> Trial:
        """Kill one rank of a job at a random point of its duration, and run the job again."""
        chance = random.Random(f"{self.seed} {name} {number}")
        path, job = self.folder(name, JOBS[name].trained), JOBS[name]
        process = start(command(job, path), ranks=job.ranks)
        wait = self.undisturbed(name).seconds * chance.uniform(0.4, 0.95)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        rank = chance.randrange(job.ranks)
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(rank_of(process.pid, rank), signal.SIGKILL)
        try:
            _, said = process.communicate(timeout=_RANKS)
        except subprocess.TimeoutExpired:
            process.kill()
            return Trial("failed", f"{name}: other ranks still run after {_RANKS:g} s")
        lines = [line for line in said.splitlines() if line.startswith("spikeguard train: ")]
        if process.returncode and len(lines) != 1:
            return Trial("failed", f"{name}: {len(lines)} lines: {lines}")
        return self.compare(name, path)

    def killed_ranks(self, number: int) -> Trial:
        """Kill one of two ranks that attack together, or both; the other one must finish alone."""
        chance = random.Random(f"{self.seed} ranks {number}")
        path, name = self.folder("ranks", True), "attack"
        seconds = self.undisturbed(name).seconds
        names = ("RANK", "WORLD_SIZE")
        both = [
            start(command(JOBS[name], path), dict(zip(names, (str(rank), "2"), strict=True)))
            for rank in range(2)
        ]
        with suppress(subprocess.TimeoutExpired):
            both[number % 2].wait(seconds * chance.uniform(0.2, 0.95))
        victims = both if number % 3 == 2 else [both[number % 2]]
        for each in victims:
            each.kill()
        said = [each.communicate(timeout=_LIMIT)[1] for each in both]
        other = both[1 - number % 2]
        if len(victims) == 2:
            return self.compare(name, path)
        if other.returncode != 0 or "Traceback" in said[1 - number % 2]:
            return Trial("failed", f"ranks: {other.returncode}: {said[1 - number % 2][-300:]}")
        left, wanted = content(path), self.undisturbed(name).content
        return Trial("passed") if left == wanted else Trial("silently wrong", f"ranks: {path}")

    def killed_database(self, number: int) -> Trial:
        """Kill the database of a sweep, start it again, and run the sweep again."""
        new = partial(self.folder, "database", False)
        wrong = killed_database(new, 2 * self.undisturbed("train").seconds, number)
        named = {"": "passed", "skipped": "skipped"}
        other = "silently wrong" if wrong.startswith("silently") else "failed"
        return Trial(named.get(wrong, other), f"database: {wrong}")

    def two_writers(self, number: int) -> Trial:
        """Start two trainings of other recipes in one new folder."""
        path, name = self.folder("writers", False), "train"
        words = command(JOBS[name], path)
        other = [*words, "seed=1"]
        both = [start(other), start(words)] if number % 2 else [start(words), start(other)]
        said = [each.communicate(timeout=_LIMIT)[1] for each in both]
        codes = [each.returncode for each in both]
        if sorted(codes) != [0, 2]:
            return Trial("silently wrong" if codes == [0, 0] else "failed", f"writers: {codes}")
        line = said[codes.index(2)].strip()
        if "\n" in line or "Traceback" in line:
            return Trial("failed", f"writers: {line}")
        if codes[1 - number % 2] == 0:  # the other recipe was first
            return Trial("passed" if "seed: 1" in (path / "recipe.yaml").read_text() else "failed")
        left, wanted = content(path), self.undisturbed(name).content
        return Trial("passed") if left == wanted else Trial("silently wrong", f"writers: {path}")

    def disk_full(self, name: str, number: int) -> Trial:
        """Run a job whose files may not grow beyond some bytes, then without that limit."""
        size = random.Random(f"{self.seed} full {name} {number}").choice([0, 300, 2000, 6000])
        path = self.folder(name, JOBS[name].trained)
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))
        process = start(command(JOBS[name], path), preexec_fn=limit)
        _, said = process.communicate(timeout=_LIMIT)
        if process.returncode not in (0, 2) or "Traceback" in said:
            return Trial("failed", f"{name}, {size} bytes: {process.returncode}: {said[-300:]}")
        return self.compare(name, path)

    def read_only(self, name: str) -> Trial:
        """Run a job in a folder that cannot be written."""
        path = self.folder(name, True)
        before = content(path)
        with _read_only(path) as possible:
            if not possible:
                return Trial("skipped", "no folder can be made read-only here")
            began = time.monotonic()
            code, said = _finish(command(JOBS[name], path), check=False)
        if code != 2 or "\n" in said or content(path) != before:
            return Trial("failed", f"{name}, read-only: {code}: {said}")
        early = time.monotonic() - began < self.undisturbed(name).seconds
        return Trial("passed" if early else "failed", f"{name}: refused only at its end")


def drills(drill: Drill) -> Iterator[tuple[str, list[Callable[[], Trial]]]]:
    """Yield the drills by name, each a list of trials; further kinds of faults are added here."""
    counts = {"train": 9, "attack": 6, "attack --jobs 2": 3, "cascade": 6, "audit": 6}
    counts |= {"reproduce": 3}
    for name, n in counts.items():
        yield f"killed: {name}", [partial(drill.killed, name, number) for number in range(n)]
    ranks = "train, 2 ranks"
    yield f"killed rank: {ranks}", [partial(drill.killed_rank, ranks, n) for n in range(6)]
    yield "killed: ranks", [partial(drill.killed_ranks, number) for number in range(6)]
    yield "killed: database", [partial(drill.killed_database, number) for number in range(4)]
    yield "two writers", [partial(drill.two_writers, number) for number in range(6)]
    full = [(name, number) for name in ("train", "attack", "audit") for number in range(3)]
    yield "disk full", [partial(drill.disk_full, *each) for each in full]
    names = ("train", "attack", "audit")
    yield "read-only", [partial(drill.read_only, name) for name in names]


def _finish(words: list[str], *, check: bool = True, ranks: int = 1) -> tuple[int, str]:
    """Run a command to its end; return its exit code and what it wrote about an error."""
    process = start(words, ranks=ranks)
    _, said = process.communicate(timeout=_LIMIT)
    lines = [line for line in said.splitlines() if line.startswith(("spikeguard", "Traceback"))]
    if check and process.returncode:
        raise SystemExit(f"{' '.join(words)}: {said}")
    return process.returncode, "\n".join(lines)


@contextmanager
def _read_only(path: Path) -> Iterator[bool]:
    """Make a folder read-only inside the block; yield whether that was possible."""
    if os.geteuid() != 0:
        path.chmod(0o555)
        try:
            yield True
        finally:
            path.chmod(0o755)
        return
    bound = [["mount", "--bind", path, path], ["mount", "-o", "remount,ro,bind", path]]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "check": False}
    done = [subprocess.run(words, **quiet).returncode == 0 for words in bound]  # type: ignore[call-overload]
    try:
        yield all(done)
    finally:
        if done[0]:
            subprocess.run(["umount", path], check=True)


def main() -> int:
    """Run all drills, print n/n for each, and return 0 if all trials passed."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only the drills whose name contains this text")
    options = parser.parse_args()
    began, wrong, failed = time.monotonic(), 0, 0
    with tempfile.TemporaryDirectory(prefix="drill-") as root, ThreadPoolExecutor(2) as pool:
        drill = Drill(Path(root), options.seed)
        for name, trials in drills(drill):
            if options.only not in name:
                continue
            found = list(pool.map(lambda trial: trial(), trials))
            outcomes = [each.outcome for each in found]
            tried = len(found) - outcomes.count("skipped")
            print(f"{name:24} {outcomes.count('passed')}/{tried}", flush=True)
            for each in found:
                if each.outcome != "passed":
                    print(f"  {each.outcome}: {each.why}", flush=True)
            wrong += outcomes.count("silently wrong")
            failed += tried - outcomes.count("passed")
    print(f"silently wrong {wrong}; {time.monotonic() - began:.0f} s, seed {options.seed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Check SpikeGuard on a machine with a GPU: tests, benchmark, roofline, and a row trained.

    python tools/gpu_check.py --out FOLDER            # at most 9 minutes; again: goes on
    python tools/gpu_check.py --dry-run --out FOLDER  # the same steps on the CPU, tiny
    python tools/gpu_check.py --pack PARTS            # what a machine without a network needs
    python tools/gpu_check.py --unpack PARTS --out FOLDER

The parts run one after another as processes of their own, each with a share of the time; one that
is not finished then is stopped, and the next call continues it from the files of the work folder.
The output folder gets at most 8 files of at most 16 MiB. Exit code 0: nothing failed (a part may be
unfinished); 1: a part failed; 2: bad input, in one line.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gpu_steps import packing
from gpu_steps.clock import Clock, Ended, run_in_time
from gpu_steps.output import deliver, restore, violations
from gpu_steps.summary import collect, page

ROOT = Path(__file__).resolve().parent.parent
TOTAL = 9 * 60.0
ROW = "strong/wrn16_4-at"
_TINY_ROW = ("data.train_limit=32", "data.test_limit=8", "model.T=2", "model.width=2")
_TINY_ROW += ("model.hidden=8", "train.batch_size=16", "evaluate.limit=")


@dataclass
class Check:
    """One call: where it works, on what, and what is known so far."""

    work: Path
    dry_run: bool
    recipe: str
    changes: list[str]
    data_root: str | None
    waiting: list[str]  # lines about parts that have not come
    machine: dict[str, Any] = field(default_factory=dict)

    def has(self, module: str) -> bool:
        """Whether a module can be imported by the steps."""
        return not str(self.machine.get(module, "missing")).startswith("missing")

    @property
    def device(self) -> str:
        """The device of all steps."""
        return "cpu" if self.dry_run else "cuda"

    @property
    def env(self) -> dict[str, str]:
        """The environment of all steps: the sources, and the unpacked packages after them."""
        paths = [str(ROOT / "src"), str(ROOT / "tools"), str(self.work / "site")]
        mine = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}  # of a caller
        found = {**mine, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
        found["GPU_CHECK_TESTS"] = str(self.work / "tests.jsonl")
        if self.dry_run:
            found |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        return found

    def run(self, seconds: float, *words: str, env: Mapping[str, str] | None = None) -> Ended:
        """Run a Python command in time."""
        command = [sys.executable, *words]
        environment = {**self.env, **(env or {})}
        log = self.work / "log.txt"
        return run_in_time(command, seconds, log=log, env=environment, cwd=ROOT)


Outcome = tuple[str, str]  # status and note


def tests(check: Check, seconds: float) -> Outcome:
    """Run tests/gpu; tests that have passed or were skipped in an earlier call are left out."""
    finished = sorted(name for name, outcome in _outcomes(check).items() if outcome != "failed")
    words = ["-m", "pytest", "tests/gpu", "-q", "-p", "gpu_steps.record_tests"]
    words += ["-c", str(ROOT / "tools/gpu_steps/pytest.ini"), f"--rootdir={ROOT}"]
    words += ["-p", "no:cacheprovider", *(f"--deselect={name}" for name in finished)]
    if check.has("xdist") and not check.dry_run:
        words += ["-n", "6"]  # most of the time is compilation on the CPU
    ended = check.run(seconds, *words)
    if ended.code is None:
        return "stopped", ""
    failed = list(_outcomes(check).values()).count("failed")
    if failed:
        return "failed", f"{failed} tests failed, see results.json"
    return ("done", "") if ended.code in (0, 5) else ("failed", "pytest could not run, see the log")


def _outcomes(check: Check) -> dict[str, str]:
    """Return the latest outcome of each test."""
    file = check.work / "tests.jsonl"
    lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return {line["test"]: line["outcome"] for line in lines}


def bench(check: Check, seconds: float) -> Outcome:
    """Run the quick benchmark, then SpikingJelly alone with each of its own kernels."""
    clock = Clock(seconds, reserve=0)
    words = ["-m", "gpu_steps.bench", "--device", check.device]
    words += ["--tiny"] if check.dry_run else []
    first = check.run(clock.left, *words, "--out", str(check.work / "bench"))
    if first.code != 0:
        return _status(first)
    failed = []
    for kernel in ("torch", "triton", "cuda") if check.has("spikingjelly") else ():
        folder = check.work / f"bench-spikingjelly-{kernel}"
        env = {"SJ_LIF_CUDA_IMPLEMENTATION": kernel}
        only = ["--only", "spikingjelly", "--out", str(folder)]
        ended = check.run(clock.left, *words, *only, env=env)
        if ended.code is None:
            return "stopped", ""
        failed += [kernel] if ended.code else []
    return "done", f"SpikingJelly does not run with: {', '.join(failed)}" if failed else ""


def roofline(check: Check, seconds: float) -> Outcome:
    """Measure the shares of the roofline."""
    out = str(check.work / "roofline.json")
    return _status(
        check.run(seconds, "-m", "gpu_steps.roofline", "--device", check.device, "--out", out)
    )


def row(check: Check, seconds: float) -> Outcome:
    """Train a row and attack it."""
    missing = [line for line in check.waiting if "cifar10" in line]
    if missing and not check.dry_run:
        return "waits", missing[0]
    words = ["-m", "gpu_steps.row", check.recipe, "--out", str(check.work / "row")]
    words += ["--seconds", f"{seconds:.0f}", *(f"--change={each}" for each in check.changes)]
    words += [f"--data-root={check.data_root}"] if check.data_root else []
    attacks = ["pgd steps=2"] if check.dry_run else ["quick", "papers", "snn-cascade"]
    words += [*(f"--attack={each}" for each in attacks), "--limit", "4" if check.dry_run else "500"]
    return _status(check.run(seconds, *words))


def _status(ended: Ended) -> Outcome:
    if ended.code is None:
        return "stopped", ""
    return ("done", "") if ended.code == 0 else ("failed", f"exit code {ended.code}, see the log")


PARTS: dict[str, tuple[float, Callable[[Check, float], Outcome]]] = {  # share of the time, part
    "tests": (1.0, tests),
    "bench": (1.2, bench),
    "roofline": (0.3, roofline),
    "row": (2.5, row),
}


def run_parts(check: Check, state: dict[str, Any], clock: Clock) -> None:
    """Run the parts that are not done, and save the state after each."""
    for place, (name, (share, part)) in enumerate(PARTS.items()):
        before = state["parts"].get(name, {"status": "not begun", "seconds": 0.0})
        if before["status"] == "done":
            continue
        later = [s for n, (s, _) in list(PARTS.items())[place:] if not _done(state, n)]
        start = clock.left
        status, note = "stopped", "no time was left"
        if start > 1:
            state["parts"][name] = {**before, "status": "stopped"}  # should this call be killed
            status, note = part(check, clock.share(share, sum(later)))
        spent = before["seconds"] + start - clock.left
        state["parts"][name] = {"status": status, "seconds": spent, "note": note}
        _save(check.work, state)
        print(f"{name}: {status}, {spent:.0f} s{f' ({note})' if note else ''}", flush=True)


def _done(state: Mapping[str, Any], name: str) -> bool:
    return state["parts"].get(name, {}).get("status") == "done"


def _save(work: Path, state: Mapping[str, Any]) -> None:
    fresh = work / "state.json.new"
    fresh.write_text(json.dumps(state, indent=1))
    fresh.replace(work / "state.json")


def _load(work: Path, dry_run: bool, row_words: list[str]) -> dict[str, Any]:
    file, new = work / "state.json", {"dry_run": dry_run, "row": row_words, "parts": {}}
    if not file.exists():
        return new
    try:
        state: dict[str, Any] = json.loads(file.read_text())
        earlier = state["dry_run"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is damaged ({error!r}); remove the work folder.") from error
    if earlier != dry_run:
        kind = "a dry run" if earlier else "a check on a GPU"
        raise ValueError(f"--work: {work} is the folder of {kind}; choose another.")
    if state.get("row", row_words) != row_words:
        raise ValueError(f"--work: {work} has the row {' '.join(state['row'])}; choose another.")
    return {**new, **state}


def _write(check: Check, state: dict[str, Any], out: Path) -> list[str]:
    """Write the output folder; return the lines about what did not fit."""
    found = collect(check.work, state)
    staged = check.work / "staged"
    staged.mkdir(exist_ok=True)
    (staged / "summary.md").write_text(page(check.work, found))
    (staged / "results.json").write_text(json.dumps(found, indent=1))
    loose = [staged / "summary.md", staged / "results.json", check.work / "log.txt"]
    order = ("state.json", "tests.jsonl", "roofline.json", "bench", "row/plan.json", "row/run")
    files = [path for path in sorted(check.work.rglob("*")) if path.is_file()]
    named = [(path.relative_to(check.work).as_posix(), path) for path in files]
    packed = [pair for start in order for pair in named if pair[0].startswith(start)]
    packed.sort(key=lambda pair: "checkpoints/best" in pair[0])  # the first to be left out
    return deliver([path for path in loose if path.exists()], packed, out)


def _machine(check: Check, clock: Clock) -> dict[str, Any]:
    """Return what the machine has; reject one without a GPU."""
    file = check.work / "machine.json"
    code = (
        f"from gpu_steps.machine import describe; import json, pathlib; pathlib.Path({str(file)!r})"
    )
    ended = check.run(min(120.0, clock.left), "-c", f"{code}.write_text(json.dumps(describe()))")
    if ended.code is None:
        raise ValueError("the time was over before Python started; give more --seconds.")
    if ended.code != 0:
        raise ValueError(f"Python cannot describe the machine; see {check.work / 'log.txt'}.")
    found: dict[str, Any] = json.loads(file.read_text())
    for name in ("torch", "spikeguard"):
        if found[name].startswith("missing"):
            raise ValueError(f"{name} cannot be imported: {found[name]}; bring it with --unpack.")
    if not check.dry_run and found.get("gpu") is None:
        raise ValueError(
            f"torch {found['torch']} sees no CUDA device; add --dry-run to run the same steps on "
            "the CPU."
        )
    return found


_READ = """
import sys
from pathlib import Path
from spikeguard.config.schema import load_recipe
try:
    load_recipe(sys.argv[2], sys.argv[3:])
except ValueError as error:
    Path(sys.argv[1]).write_text(str(error))
"""


def _require_row(check: Check, clock: Clock) -> None:
    """Reject a row whose recipe cannot be read, before the parts that come first."""
    file = check.work / "wrong.txt"
    file.unlink(missing_ok=True)
    check.run(min(120.0, clock.left), "-c", _READ, str(file), check.recipe, *check.changes)
    if file.exists():
        raise ValueError(" ".join(file.read_text().split()))


def _checked(given: argparse.Namespace) -> int:
    out = given.out or os.environ.get("OUT")
    if not out:
        raise ValueError("--out: name the folder of the results, or set OUT.")
    clock = Clock(given.seconds)
    work = Path(given.work or ROOT / "build" / ("gpu_dry_run" if given.dry_run else "gpu_check"))
    work = work.resolve()
    if given.resume_from and not (work / "state.json").exists():
        restore(Path(given.resume_from), work)
    recipe = given.recipe or ("demo/at" if given.dry_run else ROW)
    changes = [*(_TINY_ROW if given.dry_run else ()), "train.precision=bf16", *given.change]
    state = _load(work, given.dry_run, [recipe, *changes])
    work.mkdir(parents=True, exist_ok=True)
    waiting: list[str] = []
    if given.unpack:
        lines, waiting = packing.unpack(Path(given.unpack), work)
        print(*lines, *waiting, sep="\n", flush=True)
    try:
        version("spikeguard")
    except PackageNotFoundError:
        packing.write_metadata(work / "site")
    root = packing.data_root(work, given.data_root)
    check = Check(work, given.dry_run, recipe, changes, root, waiting)
    Path(out).mkdir(parents=True, exist_ok=True)  # now, not after nine minutes
    state["machine"] = check.machine = _machine(check, clock)
    missing = [f"{k}: {v}" for k, v in state["machine"].items() if str(v).startswith("missing")]
    print(*missing, sep="\n", flush=True)
    _require_row(check, clock)
    try:
        run_parts(check, state, clock)
    finally:
        for line in _write(check, state, Path(out)):
            print(line, flush=True)
    problems = violations(Path(out))
    print(*problems, f"results in {out}", sep="\n", flush=True)
    failed = any(part["status"] == "failed" for part in state["parts"].values())
    return 1 if failed or problems else 0


def _packed(given: argparse.Namespace) -> int:
    out = Path(given.pack)
    wheels, problems = (
        packing.wheels_for(given.python, out / "wheels") if given.wheels else ([], [])
    )
    root = given.data_root or os.environ.get("SPIKEGUARD_DATA") or ROOT / "data"
    cifar = Path(root) / "cifar-10-batches-bin" if given.data else None
    print(*packing.pack(out, wheels=wheels, cifar=cifar), *problems, sep="\n")
    return 0


def main(words: list[str] | None = None) -> int:
    """Parse the arguments and run; bad input is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="gpu_check", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", help="folder of the results; $OUT when left out")
    parser.add_argument("--work", help="folder to work in; build/gpu_check when left out")
    parser.add_argument("--seconds", type=float, default=TOTAL, help="time of this call")
    parser.add_argument("--dry-run", action="store_true", help="the same steps on the CPU, tiny")
    parser.add_argument("--recipe", help=f"the row to train; {ROW} when left out")
    parser.add_argument("--change", action="append", default=[], help="change of it, key=value")
    parser.add_argument("--data-root", help="folder of the data sets")
    parser.add_argument("--resume-from", help="an earlier output folder, where the work is gone")
    parser.add_argument("--unpack", help="folder of parts; unpack those that are there and go on")
    parser.add_argument("--pack", help="write the parts to this folder, and nothing else")
    parser.add_argument("--python", default="3.12", help="version of Python of the other machine")
    parser.add_argument("--no-wheels", dest="wheels", action="store_false")
    parser.add_argument("--no-data", dest="data", action="store_false")
    given = parser.parse_args(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the results so far are written
    try:
        if not given.seconds > 0:
            raise ValueError(f"--seconds: the time is positive, got {given.seconds:g}.")
        return _packed(given) if given.pack else _checked(given)
    except (ValueError, OSError) as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())

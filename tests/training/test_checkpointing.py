"""A run killed with SIGKILL at any point and resumed ends like an uninterrupted run.

The tests read the outcome of one process that imports torch once and forks a child for every run.
A child kills itself at the n-th forward pass, optimiser step or file-system operation.
"""

import functools
import gc
import io
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spikeguard.storage.digests import CHECKSUM, FILES

pytestmark = pytest.mark.slow

SCENARIOS = ("files", "steps", "chains")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_killed_run_ends_as_if_it_had_never_been_killed(outcome, scenario):
    """Weights, optimiser state, metrics, result and file contents are equal bit for bit."""
    assert outcome[scenario]["different"] == []
    assert outcome[scenario]["runs"] >= 5


def test_a_run_was_killed_at_every_file_system_operation(outcome):
    kinds = outcome["files"]["kinds"]
    assert set(kinds) == {"mkdir", "write", "fsync", "rename", "replace", "unlink", "rmdir"}
    assert outcome["files"]["runs"] == outcome["files"]["killed"] == sum(kinds.values())
    assert (
        kinds["rename"] >= 6
    )  # two checkpoints, each written once without and once with an old one


def test_runs_were_killed_between_step_and_checkpoint_and_inside_steps(outcome):
    assert outcome["steps"]["killed"] == outcome["steps"]["runs"]
    assert outcome["chains"]["killed"] > 2 * outcome["chains"]["runs"]


# The process that trains, kills and resumes


def prepare():
    """Import everything once and return the function that starts or resumes a run."""
    import torch

    from spikeguard.data import ImageSet, RandomCrop, Splits
    from spikeguard.defences import AT, TGO
    from spikeguard.models import CNN
    from spikeguard.neurons import NoisyLIF
    from spikeguard.rng import stream
    from spikeguard.training.engine import Engine
    from spikeguard.training.options import TrainOptions
    from spikeguard.training.trainer import train

    torch.set_num_threads(1)
    assert "lightning_fabric" not in sys.modules, "Fabric is imported before it is needed"
    Engine()  # imports Fabric; no gradient is computed here, so this process can be forked

    def images(count, name):
        x = torch.rand(count, 1, 4, 4, generator=stream(0, name))
        return ImageSet(x, torch.arange(count) % 2, 2, name, peak=1.0)

    parts = images(6, "train"), images(4, "val"), images(1, "test")
    data = Splits(*parts, mean=(0.5,), std=(0.5,), augment=RandomCrop(1))
    neuron = NoisyLIF(0.5, sigma=0.2, v_th=0.3)
    objective = AT(eps=0.1, steps=1, random_start=True) | TGO(lambda_max=0.4)

    def train_once(out, seconds):
        model = CNN(1, 2, T=2, width=2, hidden=3, image_size=4, neuron=neuron)
        options = (
            TrainOptions(  # with this seed the second epoch is better, so that "best" is replaced
                epochs=2, batch_size=4, lr=0.05, seed=9, checkpoint_seconds=seconds
            )
        )
        train(model, data, objective, options, out=out, resume=True)

    gc.freeze()  # the forks share the memory pages of this process
    return train_once


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def count_files(report, kill_at=None):
    """Count file-system operations; die before the ``kill_at``-th, or halfway through a write."""
    count = 0

    def reached(kind):
        nonlocal count
        count += 1
        report(kind)
        return count == kill_at

    def counted(name):
        call = getattr(os, name)

        def wrapper(*args, **kwargs):
            if reached(name):
                die()
            return call(*args, **kwargs)

        setattr(os, name, wrapper)

    for name in ("mkdir", "fsync", "rename", "replace", "unlink", "rmdir"):
        counted(name)
    opened = io.open

    def watched(file, mode="r", *args, **kwargs):
        handle = opened(file, mode, *args, **kwargs)
        if "w" not in mode:
            return handle
        write = handle.write

        def torn(data):
            if reached("write"):
                write(data[: len(data) // 2])
                handle.flush()
                die()
            return write(data)

        return Torn(handle, torn)

    io.open = watched


class Torn:
    """A file with a replaced ``write`` method."""

    def __init__(self, handle, write):
        self._handle, self.write = handle, write

    def __getattr__(self, name):
        return getattr(self._handle, name)

    def __enter__(self):
        self._handle.__enter__()
        return self

    def __exit__(self, *args):
        return self._handle.__exit__(*args)


def count_calls(report, kill_at=None, *, what):
    """Count forward passes, or finished optimiser steps; die at the ``kill_at``-th."""
    import torch

    count = 0

    def reached(*_):
        nonlocal count
        count += 1
        report(what)
        if count == kill_at:
            die()

    if what == "forward":
        called = torch.nn.Module.__call__  # a hook would keep layers from being fused

        def counted(module, *args, **kwargs):
            reached()
            return called(module, *args, **kwargs)

        torch.nn.Module.__call__ = counted
    else:
        torch.optim.Optimizer.__init__ = with_post_hook(torch.optim.Optimizer.__init__, reached)


def with_post_hook(init, hook):
    def wrapped(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.register_step_post_hook(hook)

    return wrapped


def fork(work, watch=None, kill_at=None):
    """Call ``work`` in a fork; return the counts and whether it was killed."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        if watch is not None:
            watch(lambda kind: os.write(writing, kind.encode() + b"\n"), kill_at)
        work()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        kinds = pipe.read().decode().split()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return kinds, True
    assert os.WEXITSTATUS(status) == 0, "a child failed"
    return kinds, False


def content(out):
    """Every file of a run, without values that depend on the clock or digests of them."""
    clocked = ("seconds", CHECKSUM, FILES)

    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in clocked}
        return [timeless(v) for v in value] if isinstance(value, list) else value

    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.is_dir():
            found[name] = "folder"
        elif path.suffix == ".safetensors":
            found[name] = path.read_bytes()
        else:
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            found[name] = [timeless(json.loads(line)) for line in lines]
    return found


def main(folder):
    train_once = prepare()
    rare, often = 1e9, 0.0

    def forward(report, kill_at=None):
        count_calls(report, kill_at, what="forward")

    def step(report, kill_at=None):
        count_calls(report, kill_at, what="step")

    counts, expected = {}, {}
    for seconds in (rare, often):
        for watch in (count_files, forward, step):
            out = folder / f"unbroken-{seconds}-{watch.__name__}"
            work = functools.partial(train_once, out, seconds)
            counts[watch, seconds], killed = fork(work, watch)
            assert not killed
            found = content(out)
            assert expected.setdefault(seconds, found) == found

    stories = {
        "files": [(rare, [(count_files, n + 1)]) for n in range(len(counts[count_files, rare]))],
        "steps": [
            (seconds, [(watch, n + 1)])
            for seconds in (rare, often)
            for watch, every in ((step, 1), (forward, 29))
            for n in range(0, len(counts[watch, seconds]), every)
        ],
        "chains": [],
    }
    chooser = random.Random(20240607)
    for _ in range(5):
        watches = chooser.choices((count_files, forward, step), k=5)
        stories["chains"].append(
            (often, [(w, chooser.randint(1, len(counts[w, often]) // 2)) for w in watches])
        )

    report, begun = {}, {}
    for scenario, runs in stories.items():
        report[scenario] = {"runs": len(runs), "killed": 0, "different": []}
        for number, (seconds, deaths) in enumerate(runs):
            out = folder / f"{scenario}-{number}"
            begun[out] = scenario, number, seconds
            work = functools.partial(train_once, out, seconds)
            report[scenario]["killed"] += sum(fork(work, *death)[1] for death in deaths)

    def finish():
        for out, (_, _, seconds) in begun.items():
            train_once(out, seconds)

    fork(finish)
    for out, (scenario, number, seconds) in begun.items():
        if content(out) != expected[seconds]:
            report[scenario]["different"].append(number)
    kinds = counts[count_files, rare]
    report["files"]["kinds"] = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

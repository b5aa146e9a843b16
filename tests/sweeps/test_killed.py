"""Real trainings in real processes: workers and parents killed by SIGKILL, two sweeps at once."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spikeguard.cli.entry import main
from spikeguard.sweeps.file_locks import journal_backend
from tests.toys.sweeps import TINY

pytestmark = pytest.mark.slow

WORDS = ["sweep", "demo/vanilla", *TINY, "train.epochs=3", "neuron.v_th=0.25,0.5", "--seeds", "0,1"]
WORDS += ["--maximise", "accuracy,robust:fgsm@0.1"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The table of a sweep that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed") / "s"
    assert main([*WORDS, "--out", str(folder)]) == 0
    return (folder / "sweep.json").read_bytes()


def start(folder, jobs):
    source = str(Path(__file__).parents[2] / "src")
    return subprocess.Popen(
        [sys.executable, "-m", "spikeguard", *WORDS, "--out", str(folder), "--jobs", str(jobs)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


def workers(process):
    """Return the worker processes of a sweep."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == process.pid and b"spawn_main" in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended
            continue
    return found


def read_until(process, text):
    """Read progress lines up to one with a text."""
    for line in process.stderr:
        if text in line:
            return line
    raise AssertionError(f"ended before {text!r}")


def trials(folder):
    import optuna

    study = optuna.load_study(
        study_name="s",
        storage=optuna.storages.JournalStorage(journal_backend(folder / "study.log")),
    )
    return [trial.state.name for trial in study.trials]


def test_every_worker_and_then_the_parent_is_killed_and_the_table_is_the_same(
    undisturbed, tmp_path
):
    folder = tmp_path / "s"
    process = start(folder, jobs=2)
    for moment in ("epoch 2/3", "robust:fgsm@0.1"):  # in a training, in an attack
        read_until(process, moment)
        hit = workers(process)
        assert hit
        for pid in hit:
            os.kill(pid, signal.SIGKILL)
    read_until(process, "epoch 3/3")
    process.kill()
    process.communicate()
    assert not (folder / "sweep.json").exists()

    again = start(folder, jobs=1)
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert (folder / "sweep.json").read_bytes() == undisturbed
    states = trials(folder)
    assert states.count("COMPLETE") == 2 and states.count("FAIL") >= 3
    assert set(states) == {"COMPLETE", "FAIL"}


def test_a_killed_training_goes_on_from_its_checkpoint(undisturbed, tmp_path):
    folder = tmp_path / "s"
    process = start(folder, jobs=1)
    read_until(process, "epoch 2/3  validation")
    process.kill()
    process.communicate()
    again = start(folder, jobs=1)
    first = read_until(again, "v_th=0.25 seed 0: epoch ")  # the other point ran before it
    assert "epoch 1/3" not in first
    again.communicate()
    assert again.returncode == 0 and (folder / "sweep.json").read_bytes() == undisturbed


def test_two_sweeps_at_once_share_the_points(undisturbed, tmp_path):
    folder = tmp_path / "s"
    both = [start(folder, jobs=1) for _ in range(2)]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said
    assert (folder / "sweep.json").read_bytes() == undisturbed
    assert trials(folder) == ["COMPLETE", "COMPLETE"]

"""Sweeps over a tiny recipe whose trials are arithmetic, and may kill their own process."""

import json
import multiprocessing
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from spikeguard.storage.run_folder import METRICS
from spikeguard.sweeps.engine import Sweep
from spikeguard.sweeps.metrics import parse_metric
from spikeguard.sweeps.space import parse_dimension
from spikeguard.sweeps.trial import Plan, Record

TINY = (
    "data.train_limit=60",
    "data.test_limit=12",
    "model.T=2",
    "model.width=2",
    "model.hidden=8",
    "train.epochs=1",
    "evaluate.limit=",
)
FIELDS = ("neuron.v_th=0.5:2:4",)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class ToyPlan(Plan):
    """A trial whose accuracy is v_th / 4.

    Args:
        killed: By moment, the thresholds at which the worker kills itself there, once: "begun",
            "claimed" (before the trial has an owner), "half" (in the middle of a line of the
            journal), "recorded" (before the trial is finished).
        broken: Thresholds at which the trial raises an error.
    """

    killed: tuple[tuple[str, float], ...] = ()
    broken: tuple[float, ...] = ()

    def to_dict(self):
        self._arm()
        return super().to_dict()

    def run(self, point, *, progress, on_epoch=None):
        (v_th,) = point.values()
        with (self.folder / "begun.txt").open("a") as file:
            file.write(f"{v_th} {os.getpid()}\n")
        progress(f"v_th={v_th}", 1, 2, "epoch 1")
        if v_th in self.broken and not (self.folder / "mended").exists():
            raise ValueError(f"no network\nat {v_th}")
        if self._first("begun", v_th):
            die()
        if on_epoch is not None:
            self._epochs(v_th, on_epoch)
        return Record(point, {"accuracy": v_th / 4}, {"accuracy": [v_th / 4]}, [], 1.0)

    def _epochs(self, v_th, on_epoch):
        """Report three epochs whose validation accuracies rise to v_th / 4."""
        lines = [{"epoch": n, "val_accuracy": v_th / 4 * n / 3} for n in (1, 2, 3)]
        for n in (1, 2, 3):
            (self.folder / METRICS).write_text("".join(f"{json.dumps(a)}\n" for a in lines[:n]))
            on_epoch(self.folder)

    def _first(self, moment, v_th):
        """Whether a kill is due; it is noted in the folder, so that it happens once."""
        note = self.folder / f"{moment}-{v_th}"
        if (moment, v_th) not in self.killed or note.exists():
            return False
        note.touch()
        return True

    def _arm(self):
        """Let a worker kill itself at the moments that lie inside the engine."""
        from optuna.storages.journal import JournalFileBackend
        from optuna.trial import Trial

        if multiprocessing.parent_process() is None or hasattr(Trial, "armed"):
            return  # the test's own process
        Trial.armed = True
        tag = Trial.set_user_attr

        def set_user_attr(trial, name, value):
            v_th = trial.params["model.neuron.v_th"]
            if name == "owner" and self._first("claimed", v_th):
                die()
            if name == "record" and self._first("half", v_th):
                JournalFileBackend.append_logs = append_half
            tag(trial, name, value)
            if name == "record" and self._first("recorded", v_th):
                die()

        def append_half(backend, logs):
            backend._lock.acquire()
            with Path(backend._file_path).open("ab") as file:
                file.write(b'{"op_code": 5, "worker')
            die()

        Trial.set_user_attr = set_user_attr


def toy_sweep(folder, *, fields=FIELDS, **options):
    """Return a sweep of toy trials; options of ToyPlan and Sweep."""
    own = {name: options.pop(name) for name in ("killed", "broken") if name in options}
    plan = ToyPlan("demo/vanilla", TINY, (0,), ("accuracy",), folder, **own)
    options.setdefault("maximise", (parse_metric("accuracy"),))
    return Sweep(plan, tuple(map(parse_dimension, fields)), **options)


def begun(folder):
    """Return the thresholds of the trials begun, in order."""
    lines = (Path(folder) / "begun.txt").read_text().splitlines()
    return [float(line.split()[0]) for line in lines]

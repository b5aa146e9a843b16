"""Maps over a tiny recipe whose cells are arithmetic, with a known boundary and Pareto front."""

from dataclasses import dataclass
from pathlib import Path

from spikeguard.maps.operational_map import OperationalMap
from spikeguard.maps.plan import MapPlan, write_cell
from spikeguard.sweeps.space import parse_dimension
from spikeguard.sweeps.trial import Record
from spikeguard.training.divergence import TrainingDiverged
from tests.toys.sweeps import TINY, die

V_TH, TAU = "model.neuron.v_th", "model.neuron.tau"
METRICS = ("accuracy", "spikes", "synops", "near_threshold", "robust:fgsm@0.1")


def numbers(v_th, tau):
    """Return class, accuracy, operations and robust accuracy of a toy cell.

    Working below v_th = 2: accuracy and operations fall with v_th, and tau costs operations alone,
    so the cells of the least tau are the front. The robust accuracy is highest at v_th = 1.
    """
    if v_th >= 2:
        return "silent", 0.1, 1.0, 0.1
    return "working", 0.9 - 0.1 * v_th, 100 - 40 * v_th + tau, 0.5 - 0.2 * abs(v_th - 1)


@dataclass(frozen=True)
class ToyMapPlan(MapPlan):
    """Cells of ``numbers``; those of the thresholds in ``diverged`` and ``broken`` raise.

    Args:
        killed: Thresholds at which the worker kills itself once.
        bare: The record has no cell, as in maps of earlier versions; it is in the folder.
    """

    diverged: tuple[float, ...] = ()
    broken: tuple[float, ...] = ()
    killed: tuple[float, ...] = ()
    bare: bool = False

    def run(self, point, *, progress, on_epoch=None):
        v_th, tau = point[V_TH], point[TAU]
        with (self.folder / "begun.txt").open("a") as file:
            file.write(f"{v_th} {tau}\n")
        progress("toy", 1, 1, "done")
        note = self.folder / f"killed-{v_th}"
        if v_th in self.killed and not note.exists():
            note.touch()
            die()
        if v_th in self.diverged:
            raise TrainingDiverged("nan", epoch=1, step=1, term=None, layer=None)
        if v_th in self.broken and not (self.folder / "mended").exists():
            raise ValueError("no network")
        cell = toy_cell(v_th, tau)
        write_cell(self.folder, cell)
        return Record(point, cell["values"], {}, [], 0.5, {} if self.bare else cell)


def toy_cell(v_th, tau, n=1000):
    kind, accuracy, synops, robust = numbers(v_th, tau)
    score = {"accuracy": accuracy, "low": accuracy - 0.01, "high": accuracy + 0.01, "n": n}
    return {
        "point": {TAU: tau, V_TH: v_th},
        "class": kind,
        "accuracy": score,
        "spikes": {"images": n, "an_image": synops / 2, "total": n * synops / 2, "layers": {},
                   "at_most": 60.0},
        "operations": {
            "images": n,
            "effective_acs": synops - 0.5,
            "effective_macs": 0.5,
            "membrane_updates": 3.0,
            "dense": 200.0,
        },
        "near_threshold": 0.25,
        "robust": {
            "fgsm@0.1": {**score, "accuracy": robust, "suite": "fgsm", "norm": "linf", "eps": 0.1,
                         "zero_gradient": 0.0}
        },
        "steps": 3,
        "times": 1,
        "runs": [],
        "seeds": {"0": {"accuracy": score}},
        "values": {
            "accuracy": accuracy,
            "spikes": synops / 2,
            "synops": synops,
            "near_threshold": 0.25,
            "robust:fgsm@0.1": robust,
        },
    }  # fmt: skip


def toy_map(folder, *, nx=9, ny=9, storage=None, **own):
    """Return a map over tau from 2 to 4 and v_th from 0 to 4; options of ToyMapPlan."""
    plan = ToyMapPlan("demo/vanilla", TINY, (0,), METRICS, folder, steps=2, **own)
    axes = (f"neuron.tau=2.0:4.0:{nx}", f"neuron.v_th=0.25:3.75:{ny}")
    return OperationalMap(plan, *map(parse_dimension, axes), storage=storage)


def begun(folder):
    """Return (v_th, tau) of the cells begun, in order."""
    lines = (Path(folder) / "begun.txt").read_text().splitlines()
    return [tuple(map(float, line.split())) for line in lines]

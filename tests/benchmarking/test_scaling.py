"""The model of a training step by many processes, against closed forms."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from spikeguard.defences import AT, Vanilla
from spikeguard.defences.objective import Objective
from spikeguard.kernels.batch_statistics import shared_statistics
from spikeguard.models import CNN
from spikeguard.rng import stream
from tests.toys.scripts import loaded

FILE = Path(__file__).parents[2] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling():
    with loaded(FILE) as module:
        yield module


@pytest.fixture
def work(scaling):
    return scaling.Work(batch=64, passes=3, sample=0.01, fixed=0.0, weights=8e6, norms=0)


@pytest.fixture
def perfect(scaling):
    return scaling.Machine(bandwidth=float("inf"), latency=0.0)


@pytest.mark.parametrize("ranks", [1, 2, 7, 64])
def test_without_overheads_n_processes_are_n_times_as_fast(scaling, work, perfect, ranks):
    assert scaling.step_seconds(work, perfect, ranks) == pytest.approx(64 * 0.01 * 3 / ranks)


def test_what_no_batch_shortens_bounds_the_speed_up(scaling, work, perfect):
    """Amdahl's law: 10 ms of a pass of 650 ms stay, so no number is more than 65 times as fast."""
    work = replace(work, fixed=0.01)
    alone, many = (scaling.step_seconds(work, perfect, n) for n in (1, 10**9))
    assert alone / many == pytest.approx(65)


@pytest.mark.parametrize("ranks", [2, 8])
def test_large_gradients_go_around_the_ring(scaling, work, ranks):
    """Every process sends 2 (n - 1) / n of the bytes."""
    machine = scaling.Machine(bandwidth=1e9, latency=0.0, hidden=0.0)
    expected = 2 * (ranks - 1) / ranks * 8e6 / 1e9
    assert scaling.step_parts(work, machine, ranks)["gradients"] == pytest.approx(expected)


def test_small_gradients_go_along_the_tree(scaling, work):
    machine = scaling.Machine(bandwidth=float("inf"), latency=1e-3, hidden=0.0)
    assert scaling.step_parts(work, machine, 64)["gradients"] == pytest.approx(2 * 6 * 1e-3)


def test_a_pass_hides_the_sum_of_the_gradients(scaling, work):
    machine = scaling.Machine(bandwidth=1e9, latency=0.0, hidden=1.0)
    assert scaling.step_parts(work, machine, 2)["gradients"] == 0  # 8 ms within a pass of 320


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_shared_statistics_cost_the_sums_that_a_step_makes(scaling, work, perfect, steps):
    """Along a tree of 4 processes, a sum takes 2 * 2 times the latency."""
    model, made = CNN(1, 3, T=2, width=4, hidden=8, image_size=8, generator=stream(0, "w")), []

    def total(values):
        made.append(values)
        return values.clone()

    objective = Objective.of(AT(eps=0.1, steps=steps) if steps else Vanilla())
    x, y = torch.rand(6, 1, 8, 8, generator=stream(0, "x")), torch.arange(6) % 3
    with shared_statistics(model.train(), total):
        found = objective(model, x, y, progress=0.0, generator=stream(0, "attack"))
        found.total.backward()
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    work, machine = replace(work, passes=1 + steps, norms=norms), replace(perfect, latency=1e-3)
    statistics = scaling.step_parts(work, machine, 4)["statistics"]
    assert norms > 1 and statistics == pytest.approx(len(made) * (2 * 2) * 1e-3)


def test_processes_beyond_the_cores_take_turns(scaling, work, perfect):
    two = scaling.step_seconds(work, replace(perfect, cores=2), 2)
    assert scaling.step_seconds(work, replace(perfect, cores=2), 4) == pytest.approx(two)


def test_a_slow_input_is_what_remains(scaling, work, perfect):
    """A sample is prepared in 40 ms and computed in 30: 64 samples wait 0.64 s."""
    parts = scaling.step_parts(work, replace(perfect, feeding=0.04), 1)
    assert parts["input"] == pytest.approx(64 * 0.01)

"""The model of a training step by many processes, against closed forms."""

from dataclasses import replace
from pathlib import Path

import pytest

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


def test_shared_statistics_cost_two_sums_a_normalisation_and_pass(scaling, work, perfect):
    work, machine = replace(work, norms=5), replace(perfect, latency=1e-3)
    statistics = scaling.step_parts(work, machine, 4)["statistics"]
    assert statistics == pytest.approx(2 * 5 * 3 * (2 * 2) * 1e-3)


def test_processes_beyond_the_cores_take_turns(scaling, work, perfect):
    two = scaling.step_seconds(work, replace(perfect, cores=2), 2)
    assert scaling.step_seconds(work, replace(perfect, cores=2), 4) == pytest.approx(two)


def test_a_slow_input_is_what_remains(scaling, work, perfect):
    """A sample is prepared in 40 ms and computed in 30: 64 samples wait 0.64 s."""
    parts = scaling.step_parts(work, replace(perfect, feeding=0.04), 1)
    assert parts["input"] == pytest.approx(64 * 0.01)

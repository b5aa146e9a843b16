"""benchmarks/convergence.py: curves read by hand, bars, and a search whose falls are known."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from spikeguard.attacks import Linf
from spikeguard.attacks.searches.converging import FLAT, Converging
from spikeguard.attacks.searches.search_state import Round, SearchState
from spikeguard.models import MLP
from spikeguard.neurons import LIF
from spikeguard.rng import SampleStreams, stream
from tests.toys.scripts import loaded
from tests.toys.stepping_attacks import Sign

FILE = Path(__file__).parents[2] / "benchmarks" / "convergence.py"


@pytest.fixture(scope="module")
def benchmark():
    with loaded(FILE) as module:
        yield module


@pytest.fixture(scope="module")
def tables(benchmark):
    return importlib.import_module("convergence_tables")


ROW = {"n": 10, "start": 9.0, "left": 6, "fell": [0.5, 2.0, 8.0]}


def test_a_sample_counts_as_left_until_the_second_in_which_it_fell(tables):
    read = [tables.left_at(9.0, ROW["fell"], s) for s in (0.0, 0.49, 0.5, 2.0, 7.9, 8.0, 99.0)]
    assert read == [9, 9, 8, 7, 7, 6, 6]


def test_the_curve_is_read_at_parts_of_the_time_of_autoattack(tables):
    found = tables.percentages(ROW, 5.0)
    assert found == {"1/10": 80.0, "1/2": 70.0, "1": 70.0, "1 1/2": 70.0, "end": 60.0}
    assert tables.percentages(ROW, 20.0)["1/2"] == 60.0


def test_without_autoattack_only_the_end_is_known(tables):
    assert tables.percentages(ROW, None) == {"end": 60.0}


@pytest.mark.parametrize(
    ("value", "bar", "words"),
    [(17.0, 17.0, "met"), (100 * 34 / 200, 17.0, "met"), (17.5, 17.0, "not met by 0.5")],
)
def test_a_bar_is_met_by_its_own_value_and_missed_by_one_image_more(tables, value, bar, words):
    assert tables.judged(value, bar) == words
    assert tables.judged(value, None) == ""


def test_the_median_is_that_of_each_column(tables):
    rows = [{"1/10": 30.0, "end": 16.0}, {"1/10": 20.0, "end": 17.0}, {"1/10": 25.0, "end": 15.0}]
    assert tables.medians(rows) == {"1/10": 25.0, "end": 16.0}


def rounds(*steps):
    return [Round("assg", 300.0, spent, spent, fooled, left, 1.0) for spent, fooled, left in steps]


def test_an_estimate_is_compared_with_what_ten_times_the_gradients_found(benchmark):
    """After 600 / sqrt(10) = 190 of 600 gradients four samples fell: the estimate is eight."""
    found = rounds((100, 6, 20), (600, 4, 16), (2000, 3, 13), (5200, 2, 11), (9000, 5, 6))
    progress = SimpleNamespace(rounds=found, start=26.0)
    pair = benchmark.compared(progress, 26, 500)
    assert (pair["spent"], pair["left"], pair["later"]) == (600, 16, 5200)
    assert (pair["found"], pair["more"]) == (5, 8)
    assert pair["low"] < 8 < pair["high"]


def test_nothing_is_compared_where_nothing_is_left_or_the_budget_was_not_reached(benchmark):
    progress = SimpleNamespace(rounds=rounds((100, 6, 20), (600, 20, 0)), start=26.0)
    assert benchmark.compared(progress, 26, 500) is None
    assert benchmark.compared(progress, 26, 1000) is None
    progress = SimpleNamespace(rounds=rounds((100, 6, 20), (600, 4, 16)), start=26.0)
    assert benchmark.compared(progress, 26, 500) is None  # the last round: nothing came after


def converged(model, x, y, right, seed=0, budget=20_000, batch_size=3):
    def judge(points, rows):
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    return Converging(Linf(0.1), budget=budget).run(
        model, x, y, SearchState.of(x, right), SampleStreams(seed, torch.arange(len(x))),
        batch_size=batch_size, judge=judge,
    )  # fmt: skip


def test_every_fooled_sample_has_the_time_at_which_it_fell_and_no_other():
    """Pixels above 1/2 are class 1: within 0.1, the first two can cross it; the last is wrong."""
    x = torch.tensor([0.55, 0.45, 0.8, 0.1, 0.9]).view(-1, 1, 1, 1)
    y = torch.tensor([1, 0, 1, 0, 0])
    search = converged(Sign(), x, y, torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64))
    assert search.right.tolist() == [0, 0, 1, 1, 0] and search.ended == FLAT
    assert search.fell.isfinite().tolist() == [True, True, False, False, False]
    assert (search.fell[:2] <= search.rounds[0].cpu_s).all()
    again = SearchState.from_arrays(search.arrays(), torch.device("cpu"))
    assert torch.equal(again.fell, search.fell)


def test_a_sample_fell_within_the_round_that_fooled_it():
    x = torch.rand(24, 16, generator=stream(0, "x"))
    model = MLP(16, 3, T=4, hidden=(12,), neuron=LIF(0.5), generator=stream(0, "w")).eval()
    with torch.no_grad():
        y = model(x).argmax(1)
    right = torch.ones(24, dtype=torch.float64)
    search = converged(model, x, y, right, budget=1500, batch_size=12)
    fell, began, counted = search.fell[search.fell.isfinite()], 0.0, 0
    assert len(fell) > 0
    for each in search.rounds:
        inside = (fell > began) & (fell <= began + each.cpu_s)
        assert int(inside.sum()) == each.fooled
        began, counted = began + each.cpu_s, counted + int(inside.sum())
    assert counted == len(fell)


def test_the_benchmark_loads_a_reference_network_or_says_why_not(benchmark, tmp_path):
    args = SimpleNamespace(reference=tmp_path, runs=tmp_path, limit=5, data_root=None)
    before = benchmark.reference.FOLDER
    try:
        assert "no file natural.npz" in benchmark.load("natural", args)
    finally:
        benchmark.reference.FOLDER = before
    assert "no run folder" in benchmark.load("demo/at", args)

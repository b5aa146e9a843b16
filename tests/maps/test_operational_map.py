"""Maps of toy cells: what is measured, resuming, workers, errors, and the files."""

import csv
import json
from dataclasses import replace
from itertools import product

import pytest

from spikeguard.config.errors import ConfigError
from spikeguard.maps.operational_map import OperationalMap, draw_map
from spikeguard.storage.digests import is_sealed
from spikeguard.sweeps.space import parse_dimension
from tests.toys.maps import TAU, V_TH, begun, numbers, toy_map

V = [0.25 + 3.5 * k / 8 for k in range(9)]
TAUS = [2.0 + 2 * k / 8 for k in range(9)]


def table(folder):
    text = (folder / "map.json").read_text(encoding="utf-8")
    card = json.loads(text)
    assert is_sealed(card)
    return text, card


def without_times(folder):
    _, card = table(folder)
    for cell in card["cells"]:
        cell.pop("seconds", None)
    return card["map"], card["cells"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("map") / "m", []
    return folder, draw_map(toy_map(folder), announce=said.append), said


def test_the_boundary_is_measured_and_the_silent_region_is_not(drawn):
    """The toy is silent from v_th = 2 on: the 5th value is 2.0."""
    _, found, _ = drawn
    at = {(cell["point"][TAU], cell["point"][V_TH]): cell["class"] for cell in found.cells}
    for tau in TAUS:
        assert at[tau, V[3]] == "working" and at[tau, V[4]] == "silent"
    assert set(at) >= set(product((TAUS[0], TAUS[4], TAUS[8]), (V[0], V[4], V[8])))
    assert len(found.cells) < found.size == 81 and found.left == 0 and found.failed == []
    assert not any(0 < V.index(v) - 4 < 4 and t not in (2.0, 3.0, 4.0) for t, v in at)


def test_the_records_and_efficiencies_are_those_of_the_cells(drawn):
    _, found, _ = drawn
    most = max(numbers(cell["point"][V_TH], cell["point"][TAU])[2] for cell in found.cells) / 2
    for cell in found.cells:
        kind, accuracy, synops, _ = numbers(cell["point"][V_TH], cell["point"][TAU])
        assert (cell["class"], cell["accuracy"]["accuracy"]) == (kind, accuracy)
        assert cell["eta_max"] == pytest.approx((accuracy / 0.875) / (synops / 2 / most))
        few = cell["spikes"]["an_image"] == 0.5
        assert (cell["eta_minmax"] is None) == few and cell["seconds"] == 0.5


def test_a_cell_is_a_line_of_the_table_and_a_row_of_the_csv(drawn):
    folder, found, _ = drawn
    text, card = table(folder)
    assert card["cells"] == json.loads(json.dumps(found.cells))
    lines = [line for line in text.splitlines() if line.startswith('{"point"')]
    assert [json.loads(line.rstrip(",")) for line in lines] == card["cells"]
    with (folder / "map.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines)
    for row, cell in zip(rows, card["cells"], strict=True):
        assert float(row[V_TH]) == cell["point"][V_TH] and row["class"] == cell["class"]
        assert float(row["robust.fgsm@0.1.accuracy"]) == cell["robust"]["fgsm@0.1"]["accuracy"]
        assert float(row["accuracy.seed0"]) == cell["accuracy"]["accuracy"]


def test_the_cost_is_said_before_the_start_and_nothing_is_measured_twice(drawn):
    folder, found, said = drawn
    assert said[0].startswith("9 x 9 cells: 9 first, then those where class or accuracy changes")
    assert said[1].startswith("9 points, 2 optimiser steps each: about ")
    cells = begun(folder)
    assert len(cells) == len(set(cells)) == len(found.cells)
    before, again = (folder / "map.json").read_bytes(), []
    draw_map(toy_map(folder), announce=again.append)
    assert (folder / "map.json").read_bytes() == before and again == []
    assert begun(folder) == cells


@pytest.mark.slow
def test_two_workers_draw_the_same_map(drawn, tmp_path):
    draw_map(toy_map(tmp_path / "m"), jobs=2)
    assert without_times(tmp_path / "m") == without_times(drawn[0])


def test_a_budget_stops_between_cells_and_the_same_command_goes_on(drawn, tmp_path, monkeypatch):
    from spikeguard.sweeps import engine

    looks = iter(range(10**6))
    monkeypatch.setattr(engine, "_over", lambda until: until is not None and next(looks) >= 12)
    found = draw_map(toy_map(tmp_path / "m"), seconds=3600)
    assert found.left > 0 and len(found.cells) == 12 - 1  # one look ends the first round
    monkeypatch.undo()
    whole = draw_map(toy_map(tmp_path / "m"))
    assert whole.left == 0 and without_times(tmp_path / "m") == without_times(drawn[0])


def test_a_training_that_diverges_is_a_class_and_another_error_is_not(tmp_path):
    found = draw_map(toy_map(tmp_path / "m", diverged=(V[0],), broken=(V[8],)))
    lowest = [cell for cell in found.cells if cell["point"][V_TH] == V[0]]
    assert {cell["class"] for cell in lowest} == {"not converged"}
    assert all(cell["error"].startswith("TrainingDiverged") for cell in lowest)
    assert {cell["point"][V_TH] for cell in found.failed} == {V[8]}
    assert {cell["error"] for cell in found.failed} == {"ValueError: no network"}
    assert "accuracy" not in found.failed[0] and table(tmp_path / "m")


def test_cells_that_failed_keep_their_error_until_they_are_tried_again(tmp_path):
    of = toy_map(tmp_path / "m", broken=(V[8],), nx=3)
    first = draw_map(of)
    tried = len(begun(tmp_path / "m"))
    assert draw_map(of).failed == first.failed and len(begun(tmp_path / "m")) == tried
    again = draw_map(of, retry_failed=True)
    assert again.failed == first.failed
    assert len(begun(tmp_path / "m")) == tried + len(first.failed)
    (tmp_path / "m" / "mended").touch()
    found = draw_map(of, retry_failed=True)
    assert found.failed == [] and found.left == 0
    assert {cell["class"] for cell in found.cells if cell["point"][V_TH] == V[8]} == {"silent"}


def test_cells_are_stored_with_their_trials_and_no_folder_is_needed(tmp_path):
    of = toy_map(tmp_path / "m", nx=2, ny=2)
    found = draw_map(of)
    for file in (tmp_path / "m" / "trials").glob("*/cell.json"):
        file.unlink()
    assert draw_map(of).cells == found.cells
    assert "cell" not in json.loads((tmp_path / "m" / "sweep.json").read_text())["records"][0]


def test_a_record_without_a_cell_is_read_from_its_folder_and_a_lost_one_is_one_line(tmp_path):
    of = toy_map(tmp_path / "m", nx=2, ny=2, bare=True)
    assert draw_map(of).cells == draw_map(toy_map(tmp_path / "n", nx=2, ny=2)).cells
    next((tmp_path / "m" / "trials").glob("*/cell.json")).unlink()
    with pytest.raises(ConfigError, match=r"cell\.json: missing or damaged"):
        draw_map(of)


@pytest.mark.parametrize(
    ("x", "y", "steps", "part"),
    [
        ("neuron.tau=2", "neuron.v_th=1,2", 1, "--x: model.neuron.tau needs 2 values or more"),
        ("neuron.v_th=1,2", "neuron.v_th=1,2,3", 1, "two fields, got model.neuron.v_th twice"),
        ("neuron.v_th=1,2", "train.epochs=1,2", 1, "--y: train.epochs changes the steps"),
        ("neuron.v_th=1,2", "neuron.tau=2,3", 0, "--steps: optimiser steps"),
    ],
)
def test_a_map_that_cannot_be_is_rejected(tmp_path, x, y, steps, part):
    plan = replace(toy_map(tmp_path / "m").plan, steps=steps)
    with pytest.raises(ConfigError, match=part):
        OperationalMap(plan, parse_dimension(x), parse_dimension(y))
    assert list(tmp_path.iterdir()) == []

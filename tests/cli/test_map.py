"""spikeguard map: the table, exit codes, bad input in one line, and a map that was killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from spikeguard.cli.entry import app, main
from tests.toys.sweeps import TINY

pytestmark = pytest.mark.slow

MAP = ["map", "demo/vanilla", *TINY]
AXES = ["--x", "neuron.tau=1.5,3", "--y", "neuron.v_th=0.05:50:3", "--steps", "2"]
WHOLE = [*MAP, *AXES, "--robust", "fgsm@0.1"]


def cells_of(folder):
    """Return the cells of the stored map without their times."""
    cells = json.loads((folder / "map.json").read_text())["cells"]
    return [{name: value for name, value in cell.items() if name != "seconds"} for cell in cells]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps") / "m"
    assert main([*WHOLE, "--out", str(folder)]) == 0
    return folder


def test_the_command_of_the_operational_space_can_be_parsed():
    words = ["map", "operational-space/mnist-mlp-accurate", "--x", "neuron.tau=1.001:5:10"]
    words += ["--y", "neuron.v_th=0.01:3:10", "--seeds", "0,1", "--budget", "30m", "--jobs", "2"]
    command, bound, _ = app.parse_args(
        [*words, "--out", "runs/map"], exit_on_error=False, print_error=False
    )
    assert command.__name__ == "map_" and bound.arguments["budget"] == "30m"


def test_a_map_prints_its_table_and_goes_on_where_it_stands(undisturbed, capsys):
    assert main([*WHOLE, "--out", str(undisturbed), "--resume"]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert lines[0].split() == [
        *("tau", "v_th", "class", "steps", "accuracy", "spikes", "synops", "fgsm@0.1")
    ]
    assert "6 of 6 cells measured: " in shown.out and "silent" in shown.out
    assert f"page in {undisturbed}/map.html, table in map.json and map.csv" in shown.out
    assert "epoch" not in shown.err and "of training" not in shown.err
    assert (undisturbed / "map.csv").read_text().startswith("model.neuron.tau,model.neuron.v_th,")


def test_the_map_as_json(undisturbed, capsys):
    assert main([*WHOLE, "--out", str(undisturbed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["folder"], found["size"], found["left"]) == (str(undisturbed), 6, 0)
    assert found["cells"] == json.loads((undisturbed / "map.json").read_text())["cells"]
    silent = [cell for cell in found["cells"] if cell["class"] == "silent"]
    assert silent and all(cell["times"] == 16 for cell in silent)


def test_the_cost_is_printed_before_the_start(tmp_path, capsys):
    assert main([*MAP, *AXES, "--out", str(tmp_path / "m"), "--budget", "1h"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("2 x 3 cells: 6 first, then those where class or accuracy changes")
    assert lines[1].startswith("6 points, 2 optimiser steps each: about ")


def test_a_cell_that_fails_is_shown_and_is_exit_code_1(tmp_path, capsys, monkeypatch):
    from spikeguard.maps.plan import MapPlan

    def run(*_, **__):
        raise RuntimeError("no network")

    monkeypatch.setattr(MapPlan, "run", run)
    assert main([*MAP, *AXES, "--out", str(tmp_path / "m")]) == 1
    shown = capsys.readouterr().out
    assert "6 of 6 cells measured: 6 failed" in shown
    assert "6 failed; run again with --retry-failed:" in shown
    assert "failed: model.neuron.tau=1.5, model.neuron.v_th=0.05: RuntimeError: no network" in shown


@pytest.mark.parametrize(
    "text", [pytest.param("seed0-4x: epoch", marks=pytest.mark.long), "points (3/6"]
)
def test_a_map_that_is_killed_goes_on_to_the_same_cells(undisturbed, tmp_path, text):
    folder = tmp_path / "m"
    process = subprocess.Popen(
        [sys.executable, "-m", "spikeguard", *WHOLE, "--out", str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    with process:
        assert any(text in line for line in process.stderr)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "map.json").exists()
    assert main([*WHOLE, "--out", str(folder)]) == 0
    assert cells_of(folder) == cells_of(undisturbed)


X, Y = ["--x", "neuron.tau=2:4:3"], ["--y", "neuron.v_th=1:2:3"]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([*X, "--y", "neuron.v_thh=1:2:3"], "Did you mean 'v_th'?"),
        ([*X, "--y", "neuron.v_th=2:1:3"], "goes from low to high, got '2:1:3'"),
        ([*X, "--y", "neuron.v_th=1:1:3"], "goes from low to high"),
        ([*X, "--y", "neuron.v_th"], "a dimension is FIELD=low:high:n"),
        ([*X, "--y", "neuron.v_th=1"], "--y: model.neuron.v_th needs 2 values or more"),
        ([*X, "--y", "neuron.tau=2,3"], "two fields, got model.neuron.tau twice"),
        (["--x", "neuron.tau=2:4:101", "--y", "neuron.v_th=1:2:100"], "at most 10,000 points"),
        ([*X, "--y", "neuron.v_th=1,,2"], "a value between two commas is empty"),
        ([*X, "--y", "neuron.v_th=1,1"], "a value is given twice"),
        ([*X, "--y", "objective.tgo.lambda_max=1,2"], "objective.tgo"),
        ([*X, *Y, "--robust", "snn@0"], "a radius is > 0"),
        ([*X, *Y, "model.neuron.v_th=1"], "model.neuron.v_th: is a change to the recipe and"),
        ([*X, *Y, "--robust", ""], "an empty value after --robust"),
        ([*X, "--y", "train.epochs=2,3"], "changes the steps"),
        (["--x", "neuron.tau=0.5,2", *Y], "a time constant in steps is >= 1, got 0.5"),
        ([*X, *Y, "--robust", "snn"], "name suite and radius"),
        ([*X, *Y, "--robust", "snnn@0.1"], "unknown suite 'snnn'"),
        ([*X, *Y, "--robust", "snn@8"], "robust:snn@8"),
        ([*X, *Y, "--robust-images", "5"], "counts the images that --robust attacks"),
        ([*X, *Y, "--robust", "fgsm@0.1", "--robust-images", "0"], "--robust-images: counts"),
        ([*X, *Y, "--seeds", "0,0"], "--seeds: whole"),
        ([*X, *Y, "--budget", "30"], "--budget: a time"),
        ([*X, *Y, "--budget", "0.0001s"], "is less than the training of one point"),
        ([*X, *Y, "--jobs", "0"], "--jobs counts"),
        ([*X, *Y, "--steps", "0"], "--steps: optimiser steps"),
        ([*X, *Y, "train.patience=3"], "train.patience: stops early"),
        ([*X, *Y, "data.name=cifar10"], "cifar10"),
        ([*X], "--y"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, words, part):
    given = ["--out", str(tmp_path / "m"), "--data-root", str(tmp_path / "none")]
    assert main([*MAP, *words, *given]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1 and part in shown.err
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_another_map_is_left_alone(undisturbed, capsys):
    before = (undisturbed / "map.json").read_bytes()
    assert main([*MAP, *X, *Y, "--steps", "2", "--out", str(undisturbed)]) == 2
    assert "holds another sweep" in capsys.readouterr().err
    assert (undisturbed / "map.json").read_bytes() == before


def test_two_maps_are_compared(undisturbed, capsys, tmp_path):
    assert main(["map", "compare", str(undisturbed), str(undisturbed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["tau", "v_th", "class", "accuracy", "fgsm@0.1", "synops"]
    assert "+0.0 [" in lines[1] and lines[1].endswith("x 1")
    assert lines[-1] == f"page in {undisturbed}/compare-m.html"
    assert main(["map", "compare", str(undisturbed), str(undisturbed), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["command"] == "map compare" and len(found["cells"]) == 6
    assert found["cells"][0]["accuracies"]["accuracy"][0] == 0
    assert found["page"] == str(undisturbed / "compare-m.html")
    assert "6 cells of both maps" in (undisturbed / "compare-m.html").read_text()
    assert main(["map", "compare", str(undisturbed), str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "no map, it holds no" in shown.err


def test_the_page_of_a_comparison_can_have_another_place(undisturbed, capsys, tmp_path):
    words = ["map", "compare", str(undisturbed), str(undisturbed), "--out"]
    assert main([*words, str(tmp_path / "new" / "c.html")]) == 0
    assert f"page in {tmp_path}/new/c.html" in capsys.readouterr().out
    assert (tmp_path / "new" / "c.html").is_file()
    assert main([*words, str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1 and "is a folder" in shown.err


def test_a_cell_that_failed_is_tried_again_when_asked(tmp_path, capsys, monkeypatch):
    from spikeguard.maps.plan import MapPlan

    def run(*_, **__):
        raise RuntimeError("no network")

    words = [*MAP, *AXES, "--out", str(tmp_path / "m")]
    with monkeypatch.context() as patch:
        patch.setattr(MapPlan, "run", run)
        assert main(words) == 1
    assert main(words) == 1
    assert main([*words, "--retry-failed"]) == 0
    assert capsys.readouterr().out.count("failed: ") == 12  # of two calls

"""The engine: grids, searches, errors, resuming, budgets; killed workers leave the same table."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikeguard.config.errors import ConfigError
from spikeguard.storage.digests import is_sealed
from spikeguard.sweeps import engine
from spikeguard.sweeps.engine import sweep
from spikeguard.sweeps.metrics import parse_metric
from tests.toys.sweeps import begun, toy_sweep

V_TH = [0.5, 1.0, 1.5, 2.0]


def table(folder):
    card = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    assert is_sealed(card)
    return card


def names(folder):
    return sorted(path.name for path in folder.parent.iterdir())


# --- grids


def test_a_grid_runs_every_point_once_in_order_and_names_the_best(tmp_path):
    said = []
    found = sweep(toy_sweep(tmp_path / "a"), announce=said.append)
    assert [record.point["model.neuron.v_th"] for record in found.records] == V_TH
    assert [record.values["accuracy"] for record in found.records] == [v / 4 for v in V_TH]
    assert (found.best, found.failed, found.stopped, found.left) == ([3], [], [], 0)
    assert begun(tmp_path / "a") == V_TH
    assert said[0].startswith("4 points, 2 optimiser steps each: about ")


def test_the_stored_table_has_no_times_and_a_checksum(tmp_path):
    sweep(toy_sweep(tmp_path / "a"))
    card = table(tmp_path / "a")
    assert [record["values"]["accuracy"] for record in card["records"]] == [v / 4 for v in V_TH]
    assert "seconds" not in json.dumps(card)


def test_a_second_call_runs_nothing_and_writes_the_same_table(tmp_path):
    of = toy_sweep(tmp_path / "a")
    sweep(of)
    before = (tmp_path / "a" / "sweep.json").read_bytes()
    said = []
    sweep(of, announce=said.append)
    assert begun(tmp_path / "a") == V_TH and said == []
    assert (tmp_path / "a" / "sweep.json").read_bytes() == before


def test_points_are_added_to_a_study_later(tmp_path):
    of = toy_sweep(tmp_path / "a")
    sweep(of, points=[{"model.neuron.v_th": 2.0}, {"model.neuron.v_th": 0.5}])
    assert begun(tmp_path / "a") == [2.0, 0.5]
    found = sweep(of, points=[{"model.neuron.v_th": 0.5}, {"model.neuron.v_th": 0.75}])
    assert begun(tmp_path / "a") == [2.0, 0.5, 0.75]
    assert [record.point["model.neuron.v_th"] for record in found.records] == [0.5, 0.75, 2.0]


def test_progress_counts_all_points(tmp_path):
    seen = []
    sweep(toy_sweep(tmp_path / "a"), progress=lambda *news: seen.append(news))
    assert [news for news in seen if news[0] == "sweep"] == [
        ("sweep", done, 4, "points") for done in range(5)
    ]


def own_sweep(tmp_path, *, shade=0, at="test", folder="a", **options):
    """A toy sweep over images of one's own, those of one part darker by ``shade``."""
    x, y = np.full((20, 1, 8, 8), 200, np.uint8), np.arange(20) % 10
    parts = {part: x - np.uint8(shade if part == at else 0) for part in ("train", "test")}
    columns = {f"x_{part}": images for part, images in parts.items()}
    np.savez(tmp_path / "own.npz", **columns, y_train=y, y_test=y)
    of = toy_sweep(tmp_path / folder, **options)
    changes = (*of.plan.changes[2:], f"data.name={tmp_path / 'own.npz'}")
    return replace(of, plan=replace(of.plan, changes=changes))


@pytest.mark.parametrize("at", ["train", "test"])
def test_a_sweep_goes_on_with_the_images_that_it_began_with(tmp_path, at):
    points = [{"model.neuron.v_th": v} for v in V_TH]
    sweep(own_sweep(tmp_path), points=points[:1])
    found = sweep(own_sweep(tmp_path), points=points[:2])
    assert begun(tmp_path / "a") == V_TH[:2] and len(found.records) == 2
    with pytest.raises(ConfigError, match=rf"another sweep.*: {at} images of .*own\.npz was"):
        sweep(own_sweep(tmp_path, shade=1, at=at), points=points)
    assert begun(tmp_path / "a") == V_TH[:2]


def test_the_images_of_every_file_that_a_sweep_compares_are_stored(tmp_path):
    """With a field data.name nothing is of the recipe's own data; digits are a named data set."""
    of = own_sweep(tmp_path)
    plan = replace(of.plan, changes=of.plan.changes[:-1])
    (tmp_path / "other.npz").write_bytes((tmp_path / "own.npz").read_bytes())
    files = [str(tmp_path / name) for name in ("own.npz", "other.npz")]
    varied = toy_sweep(tmp_path / "b", fields=["data.name=digits," + ",".join(files)])
    stored = replace(varied, plan=plan).to_dict()
    for part in ("train", "test"):
        first, second = (stored[f"{part} images of {file}"] for file in files)
        assert first == second
    assert not any("digits" in key for key in stored)
    assert not any("images" in key for key in toy_sweep(tmp_path / "c").to_dict())


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"fields": ["neuron.v_th=0.5:2:5"]}, "fields was"),
        ({"minimise": (parse_metric("near_threshold"),)}, "minimise was"),
        ({"sampler": "random", "trials": 4}, "sampler was grid, is now random"),
    ],
)
def test_another_sweep_in_the_folder_is_rejected(tmp_path, change, part):
    sweep(toy_sweep(tmp_path / "a"))
    before = (tmp_path / "a" / "sweep.json").read_bytes()
    with pytest.raises(ConfigError, match=f"holds another sweep.*{part}"):
        sweep(toy_sweep(tmp_path / "a", **change))
    assert (tmp_path / "a" / "sweep.json").read_bytes() == before


@pytest.mark.parametrize("what", ["file", "other"])
def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, what):
    place = tmp_path / "a"
    if what == "file":
        place.write_text("mine")
    else:
        place.mkdir()
        (place / "mine").touch()
    with pytest.raises(ConfigError, match="is a file" if what == "file" else "holds no sweep"):
        sweep(toy_sweep(place))
    assert place.is_file() or names(place / "mine") == ["mine"]


# --- errors of trials


def test_a_failed_trial_keeps_its_error_and_the_others_go_on(tmp_path):
    of = toy_sweep(tmp_path / "a", broken=(1.0,))
    found = sweep(of)
    assert [record.point["model.neuron.v_th"] for record in found.records] == [0.5, 1.5, 2.0]
    (failure,) = found.failed
    assert failure.point == {"model.neuron.v_th": 1.0}
    assert failure.error == "ValueError: no network at 1.0"
    assert table(tmp_path / "a")["failed"][0]["error"] == failure.error
    sweep(of)
    assert begun(tmp_path / "a") == V_TH  # not run again


def test_failed_points_run_again_when_asked(tmp_path):
    of = toy_sweep(tmp_path / "a", broken=(1.0,))
    sweep(of)
    assert len(sweep(of, retry_failed=True).failed) == 1
    (tmp_path / "a" / "mended").touch()
    found = sweep(of, retry_failed=True)
    assert len(found.records) == 4 and found.failed == []
    assert begun(tmp_path / "a") == [*V_TH, 1.0, 1.0]


def test_an_interrupted_trial_is_given_up_and_runs_again(tmp_path, monkeypatch):
    of = toy_sweep(tmp_path / "a")

    def interrupt(task, done, total, what):
        if task == "v_th=1.0":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(of, progress=interrupt)
    assert len(sweep(of).records) == 4
    assert begun(tmp_path / "a") == [0.5, 1.0, 1.5, 2.0, 1.0]


# --- searches


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
def test_a_search_stops_at_its_trials_and_a_seed_names_its_points(tmp_path, sampler):
    runs = [
        sweep(toy_sweep(tmp_path / name, sampler=sampler, trials=7, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    points = [[record.point for record in found.records] for found in runs]
    assert len(begun(tmp_path / "a")) == 7
    assert points[0] == points[1] != points[2]
    assert runs[0].left == 0


def test_a_search_goes_on_with_more_trials(tmp_path):
    sweep(toy_sweep(tmp_path / "a", sampler="random", trials=3))
    found = sweep(toy_sweep(tmp_path / "a", sampler="random", trials=5))
    assert len(found.records) == 5
    whole = sweep(toy_sweep(tmp_path / "b", sampler="random", trials=5))
    assert [r.point for r in found.records] == [r.point for r in whole.records]


def test_failed_trials_count_as_trials_of_a_search(tmp_path):
    of = toy_sweep(tmp_path / "a", fields=["neuron.v_th=0.5,1.0,2.0"], sampler="random", trials=9)
    found = sweep(of)
    assert len(begun(tmp_path / "a")) == 9 and len(found.records) <= 3


def test_a_trial_below_the_median_of_the_finished_ones_is_stopped(tmp_path):
    of = toy_sweep(tmp_path / "a", sampler="random", trials=12, prune=True)
    found = sweep(of)
    finished, stopped = [], []
    for v_th in begun(tmp_path / "a"):  # the rule, written out: epoch 2, from the fifth trial on
        below = len(finished) >= 4 and v_th < statistics.median(finished)
        (stopped if below else finished).append(v_th)
    assert len(stopped) > 1
    assert [stop.point["model.neuron.v_th"] for stop in found.stopped] == sorted(stopped)
    assert {stop.epoch for stop in found.stopped} == {2}
    assert [r.point["model.neuron.v_th"] for r in found.records] == sorted(finished)
    assert found.total == 12 and found.left == 0


def test_nothing_is_stopped_unless_asked(tmp_path):
    assert sweep(toy_sweep(tmp_path / "a", sampler="random", trials=12)).stopped == []


# --- what is rejected before anything is written


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"fields": ["neuron.v_thh=1,2"]}, "Did you mean 'v_th'?"),
        ({"fields": ["model.nuron.v_th=1,2"]}, "nuron"),
        ({"fields": ["neuron.v_th=-1:1:3"]}, "v_th"),
        ({"fields": ["train.optimizer=adam,sgdd"]}, "sgdd"),
        ({"fields": ["train.epochs=1:2:3"]}, "train.epochs"),
        ({"fields": []}, "varies at least one field"),
        ({"fields": ["train.lr=1,2", "train.lr=3,4"]}, "a field is given twice"),
        ({"fields": ["seed=1,2"]}, "write --seeds 0,1,2"),
        ({"maximise": ()}, "name a metric"),
        ({"minimise": (parse_metric("accuracy"),)}, "is to be maximised and minimised"),
        ({"maximise": (parse_metric("robust:snnn@0.1"),)}, "unknown suite 'snnn'"),
        (
            {"fields": ["neuron.v_th=1:2:101", "neuron.tau=2:3:100"]},
            "a grid has at most 10,000 points, got 10,100",
        ),
        ({"sampler": "tpe"}, "--trials: say how many points tpe tries"),
        ({"sampler": "tpe", "trials": 0}, "--trials counts points"),
        ({"trials": 3}, "the grid has 4 points, got 3"),
        ({"prune": True}, "--prune"),
        ({"storage": "sqlite:///a.db"}, "a database such as postgresql://"),
        ({"storage": "study.log"}, "a database such as postgresql://"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, options, part):
    with pytest.raises(ConfigError) as caught:
        sweep(toy_sweep(tmp_path / "a", **options))
    assert part in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_workers_are_counted_from_one(tmp_path):
    with pytest.raises(ConfigError, match="--jobs counts processes, >= 1, got 0"):
        sweep(toy_sweep(tmp_path / "a"), jobs=0)


# --- budgets


@pytest.fixture
def one_second_a_step(monkeypatch):
    monkeypatch.setattr("spikeguard.sweeps.cost._step_seconds", lambda built: 1.0)


def test_a_budget_below_one_point_is_rejected_and_nothing_is_written(tmp_path, one_second_a_step):
    with pytest.raises(ConfigError, match=r"--budget: 1 s is less than .* 2 optimiser steps"):
        sweep(toy_sweep(tmp_path / "a"), seconds=1)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_below_the_grid_is_said_with_numbers(tmp_path, one_second_a_step):
    said = []
    sweep(toy_sweep(tmp_path / "a"), seconds=5, announce=said.append)
    assert said[0] == "4 points, 2 optimiser steps each: about 8 s of training"
    assert "budget of 5 s reaches about 2 of 4 points" in said[1]


def test_no_point_begins_after_the_budget_and_the_next_call_goes_on(tmp_path, monkeypatch):
    of = toy_sweep(tmp_path / "a")
    over = iter([False, True])
    monkeypatch.setattr(engine, "_over", lambda until: next(over))
    found = sweep(of, seconds=3600)
    assert (len(found.records), found.left) == (1, 3)
    monkeypatch.undo()
    assert len(sweep(of).records) == 4
    assert begun(tmp_path / "a") == V_TH


# --- killed workers


@pytest.mark.slow
def test_workers_killed_at_any_moment_leave_the_table_of_an_undisturbed_sweep(tmp_path):
    """In a trial, before it has an owner, within a line of the journal, before it is finished."""
    undisturbed = toy_sweep(tmp_path / "a" / "toy")
    sweep(undisturbed)
    moments = (("begun", 0.5), ("claimed", 1.0), ("half", 1.5), ("recorded", 2.0))
    killed = toy_sweep(tmp_path / "b" / "toy", killed=moments)
    found = sweep(killed, jobs=2)
    assert found.left == 0 and found.failed == []
    expected, got = (Path(tmp_path / name / "toy" / "sweep.json") for name in "ab")
    assert got.read_bytes() == expected.read_bytes()
    notes = {f"{moment}-{v_th}" for moment, v_th in moments}
    assert notes <= set(names(tmp_path / "b" / "toy" / "sweep.json"))  # every kill happened
    again = begun(tmp_path / "b" / "toy")
    assert {v_th: again.count(v_th) for v_th in V_TH} == {0.5: 2, 1.0: 1, 1.5: 2, 2.0: 2}

"""Runs, unfinished evaluations and checkpoints of an earlier version are read back and continued.

The folders in ``stored_runs`` were written at commit d214a5b. Bits are compared on the processor
and the torch they were written with; elsewhere sums are rounded in another order.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

from spikeguard.attacks.suites import suite
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.result_files import PARTS, load_worst
from spikeguard.reporting.renderer import report
from spikeguard.runs.recipe_training import train_recipe
from spikeguard.runs.run import Run
from spikeguard.storage.checkpoints import load_model
from spikeguard.system.environment import describe

STORED = Path(__file__).parent / "stored_runs"
EACH, CASCADE = "quick-linf-0.1-first24", "quick-linf-0.1-first80-cascade"
MADE_WITH = json.loads((STORED / "finished" / "environment.json").read_text())
HERE = describe()
pytestmark = pytest.mark.slow  # trains
exact = pytest.mark.skipif(
    (HERE["torch"], HERE["cpu"]) != (MADE_WITH["torch"], MADE_WITH["cpu"]),
    reason=f"stored with torch {MADE_WITH['torch']} on {MADE_WITH['cpu']}; other bits elsewhere",
)


@pytest.fixture
def stored(tmp_path):
    """Copy a stored folder, and copy further ones over it."""

    def copy(*names):
        for name in names:
            shutil.copytree(STORED / name, tmp_path / "run", dirs_exist_ok=True)
        return tmp_path / "run"

    return copy


def weights(path, which="last"):
    run = Run.load(STORED / "finished")
    load_model(path / "checkpoints" / which, run.model)
    return run.model.state_dict()


def plan(run):
    return run.recipe.evaluate.changed(cascade=True, limit=80)


def test_a_finished_run_is_read_back(stored):
    run = Run.load(stored("finished"))
    each, cascade = run.evaluate("quick", eps=0.1), run.evaluate("quick", eps=0.1, plan=plan(run))
    assert each.samples == 24 and cascade.samples == 80 and cascade.cascade
    assert each.worst_case.accuracy < each.clean.accuracy
    assert load_worst(run.path / "attacks" / EACH).x.shape == (24, 1, 8, 8)
    page = report([run.path], run.path / "report.html")
    assert f"{100 * each.worst_case.accuracy:.1f}" in page.read_text(encoding="utf-8")


@exact
def test_the_stored_outcomes_are_found_again(stored):
    """Same weights, same seed, same attacks: the outcome of every sample."""
    run = Run.load(stored("finished"))
    attacks = suite("quick", eps=0.1)
    for name, options in ((EACH, {"limit": 24}), (CASCADE, {"limit": 80, "cascade": True})):
        was = Evaluation.load(run.path / "attacks" / name)
        now = evaluate(run.model, run.data.test, attacks, batch_size=8, **options)
        assert was.outcomes.keys() == now.outcomes.keys()
        assert all(torch.equal(was.outcomes[each], now.outcomes[each]) for each in was.outcomes)
        assert torch.equal(load_worst(run.path / "attacks" / name).x, now.worst.x)


def test_an_interrupted_training_is_resumed(stored):
    path = stored("unfinished")
    run = Run.load(STORED / "finished")
    train_recipe(run.recipe, path, resume=True)
    assert json.loads((path / "result.json").read_text())["epochs"] == 4
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]


@exact
def test_a_resumed_training_ends_with_the_bits_of_the_uninterrupted_one(stored):
    path = stored("unfinished")
    train_recipe(Run.load(STORED / "finished").recipe, path, resume=True)
    for which in ("last", "best"):
        was, now = weights(STORED / "finished", which), weights(path, which)
        assert was.keys() == now.keys()
        assert all(torch.equal(was[name], now[name]) for name in was)


@exact
@pytest.mark.parametrize("name", [EACH, CASCADE])
def test_an_interrupted_evaluation_is_continued(name, stored):
    path = stored("finished", "evaluating")
    for file in (path / "attacks").glob("*.*"):
        if file.is_file():
            file.unlink()
    run, steps = Run.load(path), []
    chosen = plan(run) if name == CASCADE else None
    kept = {file.name: file.stat().st_mtime_ns for file in (path / "attacks" / name).rglob("0*")}
    assert kept

    def progress(done, total, what):
        steps.append(what)

    now = run.evaluate("quick", eps=0.1, plan=chosen, progress=progress)
    was = Evaluation.load(STORED / "finished" / "attacks" / name)
    assert all(torch.equal(was.outcomes[each], now.outcomes[each]) for each in was.outcomes)
    assert torch.equal(load_worst(STORED / "finished" / "attacks" / name).x, now.worst.x)
    assert not (path / "attacks" / name / PARTS).exists()


def test_an_interrupted_cascade_continues_from_its_stored_state(stored):
    """The state holds times planted here: attacks that had finished are not run again."""
    import numpy as np

    path = stored("finished", "evaluating")
    (path / "attacks" / f"{CASCADE}.json").unlink()
    file = path / "attacks" / CASCADE / PARTS / "00000000.begun"
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    finished = [name for name in arrays if name.startswith("seconds:")]
    with file.open("wb") as handle:
        np.savez(handle, **{**arrays, **{name: np.array(4000.0) for name in finished}})
    if HERE["torch"] != MADE_WITH["torch"]:
        pytest.skip("another torch may write the text of a model, its identity, differently")
    run = Run.load(path)
    now = run.evaluate("quick", eps=0.1, plan=plan(run))
    assert finished and now.samples == 80
    for name, seconds in now.seconds.items():
        assert (seconds >= 4000) == (f"seconds:{name}" in finished)


def test_a_stored_shard_is_not_run_again(stored):
    """The shards hold planted outcomes, which the result shows."""
    import numpy as np

    path = stored("finished", "evaluating")
    (path / "attacks" / f"{EACH}.json").unlink()
    file = path / "attacks" / EACH / PARTS / "00000000.npz"
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    planted = {
        name: np.full_like(a, 0.25) for name, a in arrays.items() if name.startswith("right:")
    }
    np.savez(file, **{**arrays, **planted})
    run = Run.load(path)
    if HERE["torch"] != MADE_WITH["torch"]:
        pytest.skip("another torch may write the text of a model, its identity, differently")
    now = run.evaluate("quick", eps=0.1)
    assert (now.outcomes["fgsm"][:8] == 0.25).all() and (now.outcomes["fgsm"][8:] != 0.25).all()

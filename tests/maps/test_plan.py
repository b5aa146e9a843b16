"""Cells with real trainings: equal steps, longer ones where silent, numbers of their runs."""

import json

import pytest
import torch

from spikeguard.config.errors import ConfigError
from spikeguard.data.images import ImageSet
from spikeguard.encoders.coding import Direct, Poisson
from spikeguard.maps.cell import CleanLook, input_spikes
from spikeguard.maps.classes import classify
from spikeguard.maps.plan import MapPlan, read_cell
from spikeguard.models.feedforward import MLP
from spikeguard.runs.run import Run
from spikeguard.sweeps.trial import place_of
from tests.toys.sweeps import TINY

METRICS = ("accuracy", "spikes", "synops", "near_threshold", "robust:fgsm@0.1")
NEURONS = 2 * 8 * 8 + 4 * 4 * 4 + 8 * 2 * 2 + 8  # three convolutions of width 2, and 8 hidden
POINT = {"model.neuron.tau": 2.0, "model.neuron.v_th": 0.05}


def plan_at(folder, *changes, seeds=(0,), **own):
    own.setdefault("steps", 4)
    return MapPlan("demo/vanilla", (*TINY, *changes), seeds, METRICS, folder, **own)


def quiet(*news):
    pass


@pytest.mark.parametrize(
    ("steps", "batch", "epochs"), [(1, 32, 1), (2, 32, 1), (3, 32, 2), (4, 32, 2), (7, 10, 2)]
)
def test_epochs_reach_the_steps(tmp_path, steps, batch, epochs):
    """54 training images are 2 batches of 32, or 6 of 10."""
    plan = plan_at(tmp_path, f"train.batch_size={batch}", steps=steps)
    assert plan.recipe_at(POINT).train["epochs"] == epochs
    assert plan.recipe_at(POINT, 0, 4).train["epochs"] == 4 * epochs


def test_a_field_that_changes_the_batches_changes_the_epochs(tmp_path):
    plan = plan_at(tmp_path, steps=12)
    found = [plan.recipe_at({"train.batch_size": size}).train["epochs"] for size in (10, 32, 54)]
    assert found == [2, 6, 12]


def test_the_recipes_epochs_are_kept_without_steps(tmp_path):
    assert plan_at(tmp_path, "train.epochs=5", steps=None).recipe_at(POINT).train["epochs"] == 5


def test_a_training_that_may_stop_early_is_rejected(tmp_path):
    with pytest.raises(ConfigError, match=r"train\.patience: stops early"):
        plan_at(tmp_path, "train.patience=2").recipe_at(POINT)


# --- one cell


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    plan = plan_at(tmp_path_factory.mktemp("map"), seeds=(0, 1))
    return plan, plan.run(POINT, progress=quiet)


@pytest.mark.slow
def test_the_record_of_a_cell_is_that_of_its_runs(measured):
    plan, record = measured
    cell = read_cell(plan.folder, POINT)
    assert cell["point"] == POINT and cell["runs"] == list(record.runs)
    assert cell["runs"] == [f"trials/{place_of(POINT)}/seed{seed}-16x" for seed in (0, 1)]
    assert (cell["class"], cell["steps"], cell["times"]) == ("at chance", 64, 16)
    for seed, path in enumerate(cell["runs"]):
        run, card = Run.load(plan.folder / path), cell["seeds"][str(seed)]
        attacked = run.evaluate("fgsm", eps=0.1)
        assert card["accuracy"]["accuracy"] == attacked.clean.accuracy
        assert card["robust"]["fgsm@0.1"]["accuracy"] == attacked.worst_case.accuracy
        assert card["robust"]["fgsm@0.1"]["zero_gradient"] == attacked.zero_gradient
        assert card["spikes"]["an_image"]["mean"] == attacked.activity.spikes.mean
        assert card["operations"]["effective_acs"]["mean"] == attacked.activity.effective_acs.mean
        assert card["near_threshold"] == run.membrane().near_threshold
        assert card["spikes"]["total"] == 12 * card["spikes"]["an_image"]["mean"]
        assert sum(card["spikes"]["layers"].values()) == pytest.approx(
            card["spikes"]["an_image"]["mean"]
        )
        assert run.recipe.train["epochs"] == 32
        assert card["spikes"]["at_most"] == NEURONS * 2  # time steps
    means = [cell["seeds"][str(seed)]["spikes"]["an_image"]["mean"] for seed in (0, 1)]
    assert cell["spikes"]["an_image"] == record.values["spikes"] == sum(means) / 2
    low, high = cell["accuracy"]["low"], cell["accuracy"]["high"]
    assert low < cell["accuracy"]["accuracy"] < high and cell["accuracy"]["n"] == 12


@pytest.mark.slow
def test_a_second_run_of_a_cell_trains_and_attacks_nothing(measured, monkeypatch):
    plan, record = measured
    kinds = ("checkpoints/*/*", "attacks/*", "analysis/*")
    files = {
        file: file.stat().st_mtime_ns
        for kind in kinds
        for file in plan.folder.glob(f"trials/*/seed*/{kind}")
    }
    assert len(files) > 10
    again = plan.run(POINT, progress=quiet)
    assert (again.values, again.seeds) == (record.values, record.seeds)
    kept = {file: file.stat().st_mtime_ns for file in files}
    assert kept == files


@pytest.mark.slow
def test_only_some_images_may_be_attacked_and_the_clean_accuracy_is_of_all(measured, tmp_path):
    plan, _ = measured
    plan_at(tmp_path, robust_images=5).run(POINT, progress=quiet)
    cell, whole = read_cell(tmp_path, POINT), read_cell(plan.folder, POINT)["seeds"]["0"]
    assert cell["accuracy"]["accuracy"] == whole["accuracy"]["accuracy"]
    assert (cell["accuracy"]["n"], cell["robust"]["fgsm@0.1"]["n"]) == (12, 5)
    found = Run.load(plan.folder / cell["runs"][0]).evaluate("fgsm", eps=0.1)
    first = float(found.outcomes["fgsm"][:5].sum()) / 5
    assert cell["robust"]["fgsm@0.1"]["accuracy"] == first


@pytest.mark.parametrize(
    ("limit", "n", "attacked"), [("", 5, 5), (3, 5, 3), (8, 5, 5), (8, None, 8)]
)
def test_attacked_images_are_among_those_that_are_evaluated(tmp_path, limit, n, attacked):
    plan = plan_at(tmp_path, f"evaluate.limit={limit}", robust_images=n)
    assert plan.attacked(plan.recipe_at(POINT)) == attacked
    assert ("robust_images" in plan.to_dict()) == (n is not None)


@pytest.mark.slow
def test_a_silent_cell_is_trained_again_with_4_and_16_times_the_steps(tmp_path):
    point = {"model.neuron.v_th": 50.0}
    plan = plan_at(tmp_path, steps=2)
    plan.run(point, progress=quiet)
    cell, place = read_cell(tmp_path, point), tmp_path / "trials" / place_of(point)
    assert (cell["class"], cell["times"], cell["steps"]) == ("silent", 16, 32)
    assert sorted(path.name for path in place.glob("seed*")) == ["seed0", "seed0-16x", "seed0-4x"]
    lines = (place / "seed0-4x/metrics.jsonl").read_text().splitlines()
    last = [json.loads(line)["step"] for line in lines][-1]
    assert last == 8
    assert cell["spikes"]["total"] == 0 and cell["robust"]["fgsm@0.1"]["zero_gradient"] == 1
    assert cell["operations"]["effective_acs"] == 0


@pytest.mark.slow
def test_a_network_that_works_after_more_steps_is_not_called_at_chance(tmp_path):
    """Twelve steps with a rate of 1e-4 change next to nothing."""
    changes = ("data.train_limit=400", "data.test_limit=60", "train.lr=1e-4")
    plan = plan_at(tmp_path, *changes, "model.width=8", "model.hidden=32", steps=3)
    plan.run(POINT, progress=quiet)
    cell = read_cell(tmp_path, POINT)
    first = Run.load(tmp_path / "trials" / place_of(POINT) / "seed0")
    assert classify(CleanLook.at(first).behaviour) == "at chance"
    assert cell["class"] == "working" and cell["times"] > 1


@pytest.mark.slow
def test_a_network_that_works_after_more_steps_is_not_called_silent(tmp_path):
    """At v_th 0.8 the output fires nothing after 12 steps of Adam, and does after 48."""
    point = {"model.neuron.v_th": 0.8}
    changes = ("data.train_limit=400", "data.test_limit=60", "train.lr=1e-2", "model.readout=rate")
    plan = plan_at(tmp_path, *changes, "model.T=4", "model.width=8", "model.hidden=32", steps=12)
    plan.run(point, progress=quiet)
    cell = read_cell(tmp_path, point)
    first = Run.load(tmp_path / "trials" / place_of(point) / "seed0")
    assert classify(CleanLook.at(first).behaviour) == "silent"
    assert (cell["class"], cell["times"], cell["steps"]) == ("working", 4, 48)
    spikes = cell["spikes"]
    assert spikes["output"] > 0
    assert spikes["without_output"] == pytest.approx(spikes["an_image"] - spikes["output"])


# --- spikes of the input


def test_input_spikes_are_counted_where_the_input_is_spikes():
    x = torch.tensor([0.0, 1.0, 1.0, 0.0]).view(1, 1, 2, 2).expand(6, 1, 2, 2)
    images = ImageSet(x, torch.arange(6) % 2, 2, "two", peak=1.0)

    def of(encoder, n=6):
        model = MLP(in_shape=(1, 2, 2), T=5, hidden=(3,), num_classes=2, encoder=encoder)
        return input_spikes(model, images, n, seed=0, batch_size=4)

    assert of(Poisson()) == 10  # probability 1 at two pixels, 5 steps
    assert of(Poisson(signed=True), n=3) == 20  # -1 at the others
    assert of(Direct()) is None

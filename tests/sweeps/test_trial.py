"""One trial with a real training: its numbers are those of its runs, and nothing is done twice."""

import json

import pytest

from spikeguard.runs.run import Run
from spikeguard.storage.digests import is_sealed
from spikeguard.sweeps.trial import Plan, label_of, place_of
from tests.toys.sweeps import TINY

pytestmark = pytest.mark.slow

METRICS = (
    "accuracy",
    "val_accuracy",
    "robust:fgsm@0.1",
    "zero_gradient:fgsm@0.1",
    "spikes",
    "synops",
    "near_threshold",
)
POINT = {"model.neuron.v_th": 0.25, "train.optimizer": "adam"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    plan = Plan("demo/vanilla", TINY, (0, 1), METRICS, folder)
    return plan, plan.run(POINT, progress=lambda *news: None)


def test_the_numbers_of_a_point_are_those_of_its_runs(trained):
    plan, record = trained
    assert record.runs == [f"trials/{place_of(POINT)}/seed{seed}" for seed in (0, 1)]
    for number, path in enumerate(record.runs):
        run = Run.load(plan.folder / path)
        assert run.recipe.model["neuron"]["v_th"] == 0.25 and run.recipe.seed == number
        attacked = run.evaluate("fgsm", eps=0.1)
        assert record.seeds["accuracy"][number] == attacked.clean.accuracy
        assert record.seeds["robust:fgsm@0.1"][number] == attacked.worst_case.accuracy
        assert record.seeds["zero_gradient:fgsm@0.1"][number] == attacked.zero_gradient
        assert record.seeds["spikes"][number] == attacked.activity.spikes.mean
        assert record.seeds["synops"][number] == attacked.activity.operations
        assert record.seeds["near_threshold"][number] == run.membrane().near_threshold
        result = json.loads((plan.folder / path / "result.json").read_text())
        assert record.seeds["val_accuracy"][number] == result["val_accuracy"]
    for text in METRICS:
        assert record.values[text] == sum(record.seeds[text]) / 2


def test_the_record_is_stored_without_times(trained):
    plan, record = trained
    card = json.loads((plan.folder / "trials" / place_of(POINT) / "trial.json").read_text())
    assert is_sealed(card)
    assert card.pop("checksum") and card == record.to_dict() and "seconds" not in card


def test_a_second_run_trains_and_attacks_nothing(trained):
    plan, record = trained
    seen = []
    again = plan.run(POINT, progress=lambda *news: seen.append(news))
    assert again.to_dict() == record.to_dict()
    assert not any("epoch" in what or "loss" in what for _, _, _, what in seen)


def test_folders_are_names_that_differ_between_points():
    assert label_of(POINT) == "v_th=0.25,optimizer=adam"
    near = [place_of({"model.neuron.v_th": v}) for v in (0.1, 0.1 + 1e-9, 1.0)]
    assert len(set(near)) == 3 and near[0][:9] == near[1][:9] == "v_th=0.1-"
    long = place_of({"data.name": "/a/b" * 50})
    assert "/" not in long and len(long) < 100

"""What a run records of event data: which recordings there are, and which were skipped."""

import json
from dataclasses import replace

import pytest

from spikeguard.config.builder import load_data
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import load_recipe
from spikeguard.data.datasets import load
from spikeguard.data.events.event_set import SkippedRecordingWarning
from spikeguard.data.events.framing import Framing
from spikeguard.runs.data_record import data_record, require_recorded_data
from spikeguard.storage.run_folder import ENVIRONMENT
from tests.toys.event_files import write_nmnist

FRAMING = Framing(T=3)


@pytest.fixture
def root(tmp_path):
    write_nmnist(tmp_path)
    return tmp_path


def plant(root, part="Train"):
    path = root / "N-MNIST" / part / "3" / "00004.bin"
    path.write_bytes(path.read_bytes()[:-1])
    return str(path)


def test_a_run_records_its_test_recordings(root):
    data = load("nmnist", root, framing=FRAMING)
    assert data_record("nmnist", data) == {"data": data.test.describe()}
    assert data_record("digits", load("digits")) == {}
    (root / ENVIRONMENT).write_text(json.dumps(data_record("nmnist", data)))
    require_recorded_data(root, "nmnist", data)
    for other in (
        replace(data, test=data.test.subset(slice(9))),
        load("nmnist", root, framing=Framing(T=4)),
    ):
        with pytest.raises(ConfigError, match="nmnist has other test images than at the training"):
            require_recorded_data(root, "nmnist", other)


def test_the_skipped_recordings_are_written_beside_the_results(root):
    bad = [plant(root), plant(root, "Test")]
    with pytest.warns(SkippedRecordingWarning):
        data = load("nmnist", root, framing=FRAMING, skip_bad=True)
    record = data_record("nmnist", data)
    assert [line.partition(": ")[0] for line in record["skipped_recordings"]] == bad
    assert len(record["data"]["skipped"]) == 1


def test_a_recipe_may_skip(root):
    plant(root)
    written = root / "events.yaml"
    written.write_text("data: {name: nmnist, skip_bad: true}\nmodel: {name: cnn, T: 10}\n")
    recipe = load_recipe(written)
    assert recipe.training_part()["data"]["skip_bad"] is True
    with pytest.warns(SkippedRecordingWarning, match="1 of 20 recordings are skipped"):
        data = load_data(recipe, root)
    assert len(data.train) + len(data.val) == 19
    without = load_recipe(written, ["data.skip_bad="])
    assert "skip_bad" not in without.training_part()["data"]
    assert load_data(without, root).train.skipped == ()


def test_a_recipe_of_images_may_not_skip(root):
    with pytest.raises(ConfigError, match=r"digits/train holds images, and skip_bad is for event"):
        load_data(load_recipe("demo/tgo", ["data.skip_bad=true"]))

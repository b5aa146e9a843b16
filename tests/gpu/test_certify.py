"""A run certified and attacked on a GPU by the command line."""

import json

import pytest
import torch

from spikeguard.cli.entry import main

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

SMALL = [
    *("data.train_limit=200", "data.test_limit=8", "train.epochs=2", "model.T=2"),
    *("model.width=4", "model.hidden=16", "evaluate.limit="),
]


def test_both_devices_certify_and_attack_the_same_classifier(tmp_path):
    """The draws are the same; a rounding may turn a vote."""
    run, found = tmp_path / "run", {}
    assert main(["train", "demo/vanilla", *SMALL, "--out", str(run)]) == 0
    for device in ("cuda", "cpu"):
        words = ["certify", str(run), "--sigma", "0.25", "--n", "100", "--attack", "0.1"]
        assert main([*words, "--device", device]) == 0
        (card,) = (run / "certificates").glob("*.json")
        found[device] = json.loads(card.read_text())["records"]
        card.unlink()
    for one, other in zip(found["cuda"], found["cpu"], strict=True):
        assert one["label"] == other["label"]
        assert abs(one["count"] - other["count"]) <= 2 or one["predicted"] != other["predicted"]

"""A run trained and attacked on a GPU by the command line, and its checkpoint read on the CPU."""

import json

import pytest
import torch

from spikeguard.cli.entry import main
from spikeguard.runs.run import Run
from spikeguard.storage.digests import weights_digest

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

SMALL = [
    *("data.train_limit=200", "data.test_limit=40", "train.epochs=2", "model.T=2"),
    *("model.width=4", "model.hidden=16", "evaluate.limit=", "train.ema=0.9"),
]


@pytest.mark.parametrize("neuron", ["lif", "{name: noisy_lif, sigma: 0.2}"])
def test_the_same_weights_are_attacked_on_both_devices(tmp_path, neuron):
    run = str(tmp_path / "run")
    assert main(["train", "demo/at", *SMALL, f"model.neuron={neuron}", "--out", run]) == 0
    on = {device: Run.load(run, device=device) for device in ("cpu", "cuda")}
    digests = {name: weights_digest(each.model.state_dict()) for name, each in on.items()}
    assert digests["cpu"] == digests["cuda"]
    words = ["attack", run, "--suite", "quick", "--eps", "0.1", "--limit", "40"]
    assert main(words) == 0  # on the GPU, by default
    (card,) = (tmp_path / "run" / "attacks").glob("*.json")
    found = json.loads(card.read_text())
    assert found["samples"] == 40
    assert found["worst_case"]["accuracy"] <= found["clean"]["accuracy"]
    assert main([*words, "--rescore", "--device", "cuda"]) == 0


def test_a_short_search_of_the_suite_snn_runs(tmp_path):
    run = str(tmp_path / "run")
    assert main(["train", "demo/at", *SMALL, "--out", run]) == 0
    assert main(["attack", run, "--suite", "snn-cascade", "--eps", "0.1", "--limit", "8"]) == 0

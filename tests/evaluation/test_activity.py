"""Spikes and operations beside an evaluation: the numbers of the counters, stored and loaded."""

import json

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import UniformNoise
from spikeguard.data import ImageSet
from spikeguard.evaluation import activity
from spikeguard.evaluation.activity import ActivityCost, Mean, activity_cost
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.models import CNN
from spikeguard.models.spike_counts import count_spikes
from spikeguard.models.synaptic_operations import count_operations
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import stream
from tests.toys.fitting import drawn
from tests.toys.foreign_networks import LIFNode, T
from tests.toys.small_evaluations import Shift, Sign, pair

N = 9
DATA = (torch.rand(N, 1, 8, 8, generator=stream(0, "x")), torch.arange(N) % 3)
ATTACKS = {"noise": UniformNoise(sg.attacks.Linf(0.1))}


def network(neuron=None):
    neuron = LIF(0.5, 0.3) if neuron is None else neuron
    return CNN(1, 3, 3, width=4, hidden=6, image_size=8, neuron=neuron).eval()


def evaluated(model, **options):
    return evaluate(model, DATA, ATTACKS, check=False, progress=None, **options)


def test_the_numbers_are_those_of_the_counters():
    model = network()
    found = evaluated(model).activity
    with count_spikes(model) as spikes, count_operations(model) as operations, torch.no_grad():
        model(DATA[0])
    fired = sum(layer.spikes.sum(0) for layer in spikes.values())
    kinds = {True: 0, False: 0}
    for layer in operations.values():
        kinds[layer.graded] += int(layer.effective.sum())
    assert found.images == N and fired.sum() > 0
    assert found.spikes.mean == pytest.approx(float(fired.double().mean()))
    half = 1.959964 * float(fired.double().std()) / N**0.5
    assert found.spikes.high - found.spikes.mean == pytest.approx(half)
    assert found.effective_macs.mean == pytest.approx(kinds[True] / N)
    assert found.effective_acs.mean == pytest.approx(kinds[False] / N)
    assert found.dense == sum(layer.dense for layer in operations.values())
    assert found.operations == found.effective_acs.mean + found.effective_macs.mean


@pytest.mark.parametrize("neuron", [LIF(0.5, 0.3), NoisyLIF(0.5, 0.4, 0.3)], ids=["lif", "noisy"])
def test_they_depend_on_seed_and_images_alone(neuron):
    first = evaluated(network(neuron), draws=1, batch_size=4).activity
    assert first == evaluated(network(neuron), draws=1).activity
    assert first != evaluated(network(neuron), draws=1, limit=5).activity
    if isinstance(neuron, NoisyLIF):
        assert first != evaluated(network(neuron), draws=1, seed=1).activity


def test_only_the_first_images_are_measured(monkeypatch):
    monkeypatch.setattr(activity, "IMAGES", 2)
    assert evaluated(network()).activity == evaluated(network(), limit=2).activity


def test_the_accuracies_are_the_same_without_them(monkeypatch):
    model = network(NoisyLIF(0.5, 0.4, 0.3))
    whole = evaluated(model).to_dict()
    monkeypatch.setattr("spikeguard.evaluation.evaluator.activity_cost", lambda *a, **o: None)
    without = evaluated(model).to_dict()
    assert whole.keys() - without.keys() == {"activity"}
    for key in ("clean", "worst_case", "zero_gradient"):
        assert whole[key] == without[key]


def test_they_are_stored_and_loaded_and_an_older_result_has_none(tmp_path):
    found = evaluated(network())
    found.save(tmp_path / "r")
    assert Evaluation.load(tmp_path / "r").activity == found.activity
    card = json.loads((tmp_path / "r.json").read_text())
    assert card["activity"]["spikes"]["mean"] == found.activity.spikes.mean
    evaluate(Sign(), pair(), {"shift": Shift(0.1)}, progress=None).save(tmp_path / "old")
    assert "activity" not in json.loads((tmp_path / "old.json").read_text())
    assert Evaluation.load(tmp_path / "old").activity is None


def test_one_image_has_a_mean_without_an_interval():
    found = evaluated(network(), limit=1).activity
    assert found.spikes.mean > 0 and (found.spikes.low, found.spikes.high) == (None, None)
    assert ActivityCost.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_damaged_counts_are_rejected():
    good = ActivityCost(2, *(3 * [Mean(1.0, 0.5, 1.5)]), dense=4.0).to_dict()
    assert ActivityCost.from_dict(good).to_dict() == good
    for change in ({"images": 0}, {"dense": -1.0}, {"spikes": {**good["spikes"], "mean": 1e999}}):
        with pytest.raises(ValueError, match="counts must be finite"):
            ActivityCost.from_dict({**good, **change})


def test_a_foreign_network_is_counted_and_one_that_cannot_be_has_none():
    def foreign(neuron):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 20), neuron, nn.Linear(20, 3))
        return sg.foreign(drawn(net, 0.4, stream(0, "toy")), T=T).eval()

    assert evaluated(foreign(LIFNode())).activity.spikes.mean > 0

    class Parts(LIFNode):
        settled = False

        def forward(self, x):
            if self.settled and self._forward_hooks:  # stands for a layer that cannot be counted
                raise RuntimeError("counted")
            return super().forward(x)

    node = Parts()
    model = foreign(node)
    model(DATA[0][:2])
    node.settled = True
    assert evaluated(model).activity is None


def test_batches_are_halved_where_memory_runs_out():
    class Small(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.sizes = inner, []

        def forward(self, x):
            self.sizes.append(len(x))
            if len(x) > 4:
                raise RuntimeError("can't allocate memory")
            return self.inner(x)

    images, model = ImageSet(*DATA, 3, "noise", 1.0), Small(network())
    options = {"n": N, "seed": 0, "batch_size": 16}
    found = activity_cost(model, images, **options)
    assert found == activity_cost(network(), images, **options)
    assert model.sizes == [9, 8, 4, 4, 1]

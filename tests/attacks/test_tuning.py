"""Tuning on validation data: the strongest wins, ties go to the first, all are counted."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from spikeguard.attacks import ASSG, FGSM, HART, PGD, Backprop, EoT, Linf, ThreatViolation, tune
from spikeguard.attacks.tuning import adjusted, tunable
from spikeguard.data import ImageSet
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import RandomSource, stream


class Threshold(nn.Module):
    """Class 1 where the first pixel is above 1/2, else 0."""

    def forward(self, x):
        score = x.flatten(1)[:, 0] - 0.5
        return torch.stack([-score, score], 1)


@dataclass(frozen=True)
class Towards:
    """A gradient that points the right way only for samples with a second pixel below a bound."""

    bound: float

    def __call__(self, model, x, y, loss):
        helps = (x[:, 1] < self.bound).to(x.dtype)
        grad = torch.zeros_like(x)
        grad[:, 0] = helps * (1 - 2 * y)
        return loss(model(x), y), grad


def validation():
    """Eight samples, all right; the second pixel is 0, 1/8, ..., 7/8."""
    y = torch.tensor([0, 1] * 4)
    x = torch.stack([0.4 + 0.2 * y, torch.arange(8) / 8], 1)
    return x, y


CANDIDATES = {f"{b:g}": Towards(b) for b in (0.3, 0.8, 0.5)}


def attack(gradient):
    return FGSM(Linf(0.2), gradient=gradient)


@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_scores_are_the_share_that_stays_right(batch_size):
    found = tune(Threshold(), validation(), CANDIDATES, attack, batch_size=batch_size)
    assert found.scores == {"0.3": 5 / 8, "0.8": 1 / 8, "0.5": 4 / 8}
    assert (found.name, found.gradient) == ("0.8", CANDIDATES["0.8"])
    assert (found.trials, found.samples) == (3, 8)


def test_a_limit_takes_the_first_samples():
    found = tune(Threshold(), validation(), CANDIDATES, attack, limit=2)
    assert found.samples == 2 and set(found.scores.values()) == {0}


def test_among_equals_the_first_is_chosen():
    same = {"b": Towards(0.5), "a": Towards(0.5)}
    assert tune(Threshold(), validation(), same, attack).name == "b"


def test_an_image_set_will_do():
    x, y = validation()
    found = tune(Threshold(), ImageSet(x, y, 2, "validation", peak=1.0), CANDIDATES, attack)
    assert found.name == "0.8"


def test_candidates_get_the_same_start_and_noise():
    """Two names for one gradient get one score, though start and model are random."""
    neuron = NoisyLIF(0.5, 0.3, v_th=0.3)
    model = MLP(2, 2, T=2, hidden=(6,), neuron=neuron, generator=stream(0, "w"))
    same = {"one": HART(0.5), "other": HART(0.5)}

    def search(gradient):
        return PGD(Linf(0.2), steps=2, gradient=gradient)

    found = tune(model, validation(), same, search, seed=3)
    assert found.scores["one"] == found.scores["other"]
    assert tune(model, validation(), same, search, seed=3) == found
    assert model.training and all(m.rule is None for m in model.modules() if hasattr(m, "rule"))


class Coin(nn.Module):
    """Correct with probability 3/4 for every input."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()

    def forward(self, x):
        right = (self.random.uniform(x[:, 0], dim=0) < 0.75).to(x.dtype) + 0 * x.sum(1)
        return torch.stack([right, 1 - right], 1)


def test_a_noisy_model_is_scored_on_several_draws():
    """400 samples, 10 draws: 0.75 within four standard errors of 0.007; one draw has 0.022."""
    x = torch.rand(400, 2, generator=stream(0, "x"))
    y = torch.zeros(400, dtype=torch.int64)
    found = tune(Coin(), (x, y), {"own": Backprop()}, attack)
    assert abs(found.scores["own"] - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 4000)
    hits = found.scores["own"] * 4000
    assert hits == pytest.approx(round(hits)) and round(hits) % 10, "not a score of one draw"


def test_an_attack_that_leaves_its_threat_set_is_not_scored():
    class Outside:
        threat = Linf(0.1)

        def __init__(self, gradient):
            pass

        def __call__(self, model, x, y, *, generator=None):
            return (x + 0.2).clamp(0, 1)

    with pytest.raises(ThreatViolation):
        tune(Threshold(), validation(), CANDIDATES, Outside)


@pytest.mark.parametrize(
    ("candidates", "options", "says"),
    [
        ({}, {}, "no candidates"),
        (CANDIDATES, {"limit": 0}, "limit"),
        (CANDIDATES, {"batch_size": 0}, "batch_size"),
    ],
)
def test_arguments_out_of_range_are_rejected(candidates, options, says):
    with pytest.raises(ValueError, match=says):
        tune(Threshold(), validation(), candidates, attack, **options)


def test_tuning_changes_the_tuned_setting_alone():
    asked = FGSM(Linf(0.2), gradient=EoT(4, ASSG(temporal=False, reset=False)))
    (found,) = adjusted({"x": asked}, {"ASSG": ASSG(0.39)}).values()
    assert found.gradient == EoT(4, ASSG(0.39, temporal=False, reset=False))
    build = tunable({"x": asked})["ASSG"]
    assert build(ASSG(0.39)) == found

"""Scorer: shares of correct draws that are known beforehand, and which draws it uses."""

import pytest
import torch
from torch import nn

from spikeguard.attacks import Converging, Linf, ThreatViolation
from spikeguard.attacks.model_access import observe_passes
from spikeguard.attacks.searches.converging import CHOICE_DRAWS
from spikeguard.data import ImageSet
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.scoring import Scorer
from spikeguard.evaluation.worst_case import CHOICE, REPORT
from spikeguard.rng import RandomSource, stream


class Coin(nn.Module):
    """Class 1 if a uniform number of the sample is below its pixel."""

    def __init__(self):
        super().__init__()
        self.random, self.stochastic = RandomSource(), True

    def forward(self, x):
        pixel = x.flatten(1)[:, 0]
        score = pixel - self.random.uniform(pixel, dim=0)
        return torch.stack([-score, score], 1)


def pixels(*values):
    x = torch.tensor(values).view(-1, 1, 1, 1)
    return x, torch.ones(len(values), dtype=torch.int64), torch.arange(len(values))


def test_the_share_is_the_probability_of_the_class():
    x, y, index = pixels(0.0, 0.3, 0.8, 1.0)
    share = Scorer(Coin(), 0, 4000, True).share(x, y, index)
    assert share.dtype == torch.float64
    assert (share[0], share[3]) == (0, 1)
    assert share[1:3].tolist() == pytest.approx([0.3, 0.8], abs=4 * 0.5 / 4000**0.5)


def test_two_inputs_of_a_sample_share_their_draws_and_the_report_has_others():
    scorer, (x, y, index) = Scorer(Coin(), 0, 50, True), pixels(*[0.5] * 40)
    assert torch.equal(scorer.share(x, y, index), scorer.share(x, y, index))
    alone = scorer.share(x[7:8], y[7:8], index[7:8])
    assert torch.equal(scorer.share(x, y, index)[7:8], alone)
    choice, report = (scorer.share(x, y, index, name=name) for name in (CHOICE, REPORT))
    assert not torch.equal(choice, report)
    assert torch.equal(scorer.reported(x, y, index, choice), report)
    quiet = Scorer(Coin(), 0, 50, False)
    assert quiet.reported(x, y, index, choice) is choice, "without noise there is one score"


@pytest.mark.parametrize(("asked", "passes"), [(None, 5), (12, 12)])
def test_every_draw_is_one_pass(asked, passes):
    x, y, index = pixels(0.2, 0.9)
    seen = []
    with observe_passes(lambda samples, gradient: seen.append(samples)):
        Scorer(Coin(), 0, 5, True).share(x, y, index, draws=asked)
    assert seen == [2] * passes


def test_a_result_outside_the_set_is_rejected_by_name():
    x, y, index = pixels(0.5)
    scorer = Scorer(Coin(), 0, 5, True)
    scorer.adversarial("mine", Linf(0.1), x + 0.1, x, y, index)
    with pytest.raises(ThreatViolation, match="evaluate: attack 'mine': "):
        scorer.adversarial("mine", Linf(0.1), x + 0.2, x, y, index)


def test_a_converging_search_chooses_on_more_draws_than_it_is_scored_on(monkeypatch):
    asked, own = [], Scorer.adversarial

    def noting(self, name, threat, found, x, y, index, draws=None):
        asked.append(draws)
        return own(self, name, threat, found, x, y, index, draws)

    monkeypatch.setattr(Scorer, "adversarial", noting)
    from tests.attacks.searches.test_converging import noisy

    x = torch.rand(6, 16, generator=stream(0, "x"))
    data = ImageSet(x, torch.zeros(6, dtype=torch.int64), 3, "random", peak=1.0)
    attacks = {"snn": Converging(Linf(0.1), budget=50)}
    found = evaluate(noisy(), data, attacks, cascade=True, draws=3, check=False)
    assert asked and set(asked) == {3 * CHOICE_DRAWS}
    assert set((found.outcomes["worst_case"] * 3).round(decimals=6).tolist()) <= {0, 1, 2, 3}

"""Scorer: shares of correct draws that are known beforehand, and which draws it uses."""

import pytest
import torch

from spikeguard.attacks import Converging, Linf, ThreatViolation
from spikeguard.attacks.model_access import observe_passes
from spikeguard.attacks.searches.converging import CHOICE_DRAWS
from spikeguard.data import ImageSet
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.scoring import Scorer
from spikeguard.evaluation.worst_case import CHOICE, REPORT
from spikeguard.rng import stream
from tests.toys.small_evaluations import Noisy, spiking


def pixels(*values):
    x = torch.tensor(values).view(-1, 1, 1, 1)
    return x, torch.zeros(len(values), dtype=torch.int64), torch.arange(len(values))


def test_the_share_is_the_probability_of_the_class():
    """Noisy predicts class 0 with probability 3/4."""
    x, _, index = pixels(0.0, 0.3)
    share = Scorer(Noisy(), 0, 4000, True).share(x, index, index)
    assert share.dtype == torch.float64
    assert share.tolist() == pytest.approx([0.75, 0.25], abs=4 * 0.433 / 4000**0.5)


def test_two_inputs_of_a_sample_share_their_draws_and_the_report_has_others():
    scorer, (x, y, index) = Scorer(Noisy(), 0, 50, True), pixels(*[0.5] * 40)
    assert torch.equal(scorer.share(x, y, index), scorer.share(x, y, index))
    alone = scorer.share(x[7:8], y[7:8], index[7:8])
    assert torch.equal(scorer.share(x, y, index)[7:8], alone)
    choice, report = (scorer.share(x, y, index, name=name) for name in (CHOICE, REPORT))
    assert not torch.equal(choice, report)
    assert torch.equal(scorer.reported(x, y, index, choice), report)
    quiet = Scorer(Noisy(), 0, 50, False)
    assert quiet.reported(x, y, index, choice) is choice, "without noise there is one score"


@pytest.mark.parametrize(("asked", "passes"), [(None, 5), (12, 12)])
def test_every_draw_is_one_pass(asked, passes):
    x, y, index = pixels(0.2, 0.9)
    seen = []
    with observe_passes(lambda samples, gradient: seen.append(samples)):
        Scorer(Noisy(), 0, 5, True).share(x, y, index, draws=asked)
    assert seen == [2] * passes


def test_a_result_outside_the_set_is_rejected_by_name():
    x, y, index = pixels(0.5)
    scorer = Scorer(Noisy(), 0, 5, True)
    scorer.adversarial("mine", Linf(0.1), x + 0.1, x, y, index)
    with pytest.raises(ThreatViolation, match="evaluate: attack 'mine': "):
        scorer.adversarial("mine", Linf(0.1), x + 0.2, x, y, index)


def test_a_converging_search_chooses_on_more_draws_than_it_is_scored_on(monkeypatch):
    asked, own = [], Scorer.adversarial

    def noting(self, name, threat, found, x, y, index, draws=None):
        asked.append(draws)
        return own(self, name, threat, found, x, y, index, draws)

    monkeypatch.setattr(Scorer, "adversarial", noting)
    x = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
    data = ImageSet(x, torch.zeros(6, dtype=torch.int64), 3, "random", peak=1.0)
    attacks = {"snn": Converging(Linf(0.1), budget=50)}
    found = evaluate(spiking(0.3), data, attacks, cascade=True, draws=3, check=False)
    assert asked and set(asked) == {3 * CHOICE_DRAWS}
    assert set((found.outcomes["worst_case"] * 3).round(decimals=6).tolist()) <= {0, 1, 2, 3}

"""A score that was measured elsewhere."""

import torch

from spikeguard.evaluation.statistics import Score


def outcomes(right, n):
    return (torch.arange(n) < right).double()


def test_a_score_from_a_share_is_the_score_of_its_outcomes():
    assert Score.from_share(0.25, 8) == Score.of(outcomes(2, 8))

"""The warning about a model that classifies no better than guessing."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.preflight.chance import guesses
from spikeguard.preflight.quick import PreflightWarning
from spikeguard.system.intervals import binomial_tail


def test_the_tail_is_the_sum_of_the_definition():
    assert binomial_tail(0, 10, 0.3) == pytest.approx(1)
    assert binomial_tail(10, 10, 0.5) == pytest.approx(2**-10)
    assert binomial_tail(1, 32, 0.1) == pytest.approx(1 - 0.9**32)
    assert binomial_tail(11, 10, 0.3) == 0


def test_guesses_are_named_and_skill_is_not():
    assert guesses(6, 32, 10) and not guesses(7, 32, 10)  # 7 or more by chance: 4 %
    assert guesses(0, 1000, 10) and not guesses(130, 1000, 10)
    assert not guesses(0, 19, 10)  # too few images to say
    assert not guesses(100, 100, 1)
    shares = [binomial_tail(k, 100, 0.25) for k in range(101)]
    assert [bool(guesses(k, 100, 4)) for k in range(101)] == [share > 0.05 for share in shares]


def linear(scale, seed=0):
    """A classifier of digits by its distance to the mean of each class; random for scale 0."""
    x, y = sg.data.load("digits").train.batch(slice(None))
    means = torch.stack([x[y == k].mean(0).flatten() for k in range(10)])
    layer = nn.Linear(64, 10)
    noise = torch.randn(10, 64, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        layer.weight.copy_(scale * means + (1 - scale) * noise)
        layer.bias.copy_(-scale * means.square().sum(1) / 2)
    return nn.Sequential(nn.Flatten(), layer).eval()


def test_check_and_evaluate_warn_of_a_random_network_only(recwarn):
    x, y = sg.data.load("digits").test.batch(slice(100))
    attacks = {"pgd": sg.attacks.PGD(sg.attacks.Linf(0.1), steps=1)}
    sound = sg.evaluate(linear(1.0), (x, y), attacks)
    assert sg.check(linear(1.0), x, y).warning == "" == sound.warning
    assert "warning" not in sound.table() and not recwarn
    found = sg.check(linear(0.0), x, y)
    assert "no better than guessing among 10 classes" in found.warning
    assert found.warning in str(found)
    with pytest.warns(PreflightWarning, match=r"of 100 images .* no better than guessing"):
        random = sg.evaluate(linear(0.0), (x, y), attacks)
    assert " ".join(random.table().split()).endswith(f"warning: {random.warning}")

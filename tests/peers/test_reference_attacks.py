"""Our attacks on networks that independent code trained and attacked: the same numbers."""

import pytest
import torch

from spikeguard.attacks import PGD, Linf, suite
from spikeguard.evaluation.evaluator import evaluate
from tests.peers.networks import SURROGATE, load, needs_networks

EPS = 0.1

pytestmark = needs_networks


def reference(name):
    """Return the network, its images and labels, and its record."""
    model, record = load(name)
    return model, (record["x"], record["y"]), record


@pytest.mark.parametrize("name", sorted(SURROGATE))
def test_pgd_10_leaves_what_the_independent_pgd_10_left(name):
    """Same step eps/4 from other random starts: 200 images agree to four points."""
    model, data, record = reference(name)
    result = evaluate(model, data, {"pgd10": PGD(Linf(EPS), steps=10, step_size=EPS / 4)})
    assert torch.equal(result.outcomes["clean"].bool(), record["clean"])
    theirs = float(record["pgd10"].double().mean())
    assert result.attacks["pgd10"].accuracy == pytest.approx(theirs, abs=0.04)


def test_the_default_step_is_theirs():
    assert PGD(Linf(EPS)).steps == 10  # 2.5 eps / 10 = eps / 4
    model, data, _ = reference("natural")
    attacks = [PGD(Linf(EPS), step_size=step, random_start=False) for step in (None, EPS / 4)]
    first, second = (attack(model, *data) for attack in attacks)
    assert torch.equal(first, second)


def test_the_surrogate_sweep_unmasks_a_network_whose_gradient_is_hidden():
    """Its own surrogate of half-width 0.02 leaves above 90 %; other half-widths below 40 %."""
    model, (x, y), _ = reference("masked")
    data = x[:50], y[:50]
    result = evaluate(model, data, suite("quick", eps=EPS))
    assert result.attacks["pgd10"].accuracy > 0.9
    assert result.worst_case.accuracy < 0.4

"""Suites of attacks against the true robust accuracy of thirty small spiking networks.

The truth is stored with the networks: see tests/toys/exact_networks.py.
"""

from copy import deepcopy

import pytest
import torch

from spikeguard.attacks import FGSM, Converging, Linf, suite
from spikeguard.evaluation.evaluator import evaluate
from tests.toys.exact_networks import IMAGES, SHAPES, answers, known

NUMBERS = range(len(SHAPES))
MISSED = (8, 10, 11, 12, 16, 18, 27)  # the search ends before it finds all of them
LONG = (0, 1, 2, 3, 4, 5, 6, 7, 15, 17, 20, 23, 26, 28)  # equal too, after more rounds
QUICK = (0, 8, 13, 18)  # recomputed in every run


def right_under(network, attacks):
    """Return which images a cascade leaves right [N], after checking the points it reports."""
    result = evaluate(network.model, (network.x, network.y), attacks, cascade=True)
    right = result.outcomes["worst_case"] > 0
    with torch.no_grad():
        assert torch.equal(network.model(result.worst.x).argmax(1) == network.y, right)
    return right


def recompute(number):
    network = known(number)
    found = answers(network.model, network.x, network.y, network.eps)
    assert [verdict.adversarial for verdict in found] == (~network.robust).tolist()


@pytest.mark.parametrize("number", QUICK)
def test_the_oracle_finds_the_stored_truth(number):
    recompute(number)


@pytest.mark.long
@pytest.mark.parametrize("number", sorted(set(NUMBERS) - set(QUICK)))
def test_the_oracle_finds_the_stored_truth_of_the_others(number):
    recompute(number)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_stored_points_are_adversarial(number):
    """A forward pass in float32 and one in float64 confirm them, inside ball and box."""
    network = known(number)
    Linf(network.eps).check(network.points, network.x)
    assert 0 < network.robust.sum() < IMAGES
    with torch.no_grad():
        single = network.model(network.points).argmax(1)
        double = deepcopy(network.model).double()(network.points.double()).argmax(1)
    assert torch.equal(single == network.y, network.robust)
    assert torch.equal(double == network.y, network.robust)


@pytest.mark.parametrize("number", NUMBERS)
def test_no_quick_attack_goes_below_the_truth(number):
    network = known(number)
    right = right_under(network, suite("quick", eps=network.eps))
    assert right[network.robust].all()


def test_a_weak_attack_is_seen_to_be_weak():
    """One step leaves more images right than the truth, so that the comparison can fail."""
    left = [
        int((right_under(k, {"fgsm": FGSM(Linf(k.eps))}) & ~k.robust).sum())
        for k in map(known, NUMBERS)
    ]
    assert sum(left) >= len(SHAPES)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=[pytest.mark.long] * (number in LONG))
        for number in NUMBERS
        if number not in MISSED
    ],
)
def test_a_converging_search_equals_the_truth(number):
    network = known(number)
    right = right_under(network, {"snn": Converging(Linf(network.eps))})
    assert torch.equal(right, network.robust)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.long] * (n not in MISSED[:3])) for n in MISSED]
)
def test_a_converging_search_is_never_below_the_truth(number):
    """Its default budget misses ten images of these networks, in small regions at edges."""
    network = known(number)
    right = right_under(network, {"snn": Converging(Linf(network.eps), budget=3000)})
    assert right[network.robust].all()

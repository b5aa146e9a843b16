"""The sequential rule: its answers, and its error rate at the limit."""

import math
from itertools import product

import pytest
import torch

from spikeguard.auditing.tolerances import LUCK, differs, looks, percent, worst_of
from spikeguard.evaluation.estimates import Estimate
from spikeguard.rng import stream


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.425, "42.5 %"), (0.6, "60 %"), (1, "100 %"), (0, "0 %"), (-1e-9, "0 %"), (-0.02, "-2 %")],
)
def test_percent(fraction, text):
    assert percent(fraction) == text


# --- decisions


@pytest.mark.parametrize("answers", list(product((True, False, None), repeat=2)))
def test_one_limit_that_is_exceeded_decides_and_one_undecided_leaves_it_open(answers):
    expected = True if True in answers else (None if None in answers else False)
    assert worst_of(*answers) is expected


@pytest.mark.parametrize(
    ("count", "n", "answer"),
    [(0, 64, False), (2, 64, False), (0, 20, None), (3, 64, None), (6, 64, True), (64, 64, True)],
)
def test_results_differ_above_1_percent_and_are_equal_below_12(count, n, answer):
    """In %, 6 of 64: [3.5, 19.3]; 3 of 64: [1, 13.1]; 2 of 64: [0.4, 10.8]; 0 of 20: [0, 16.8]."""
    assert differs(Estimate.share(count, n)) is answer


@pytest.mark.parametrize(
    ("first", "available", "sizes"),
    [(64, 500, (64, 128, 256)), (64, 200, (64, 128, 200)), (64, 64, (64,)), (64, 9, (9,))],
)
def test_looks_double_as_far_as_there_are_samples(first, available, sizes):
    assert looks(first, available) == sizes


def decisions(draw, sizes, limit, repeats=4000):
    """Return how often a sequence of looks says above, within and nothing."""
    counts = {True: 0, False: 0, None: 0}
    for _ in range(repeats):
        outcomes = draw(sizes[-1])
        answer = None
        for n in sizes:
            answer = outcomes(n).above(limit)
            if answer is not None:
                break
        counts[answer] += 1
    return {answer: count / repeats for answer, count in counts.items()}


@pytest.mark.parametrize("first", [24, 64, 100])
@pytest.mark.parametrize("limit", [LUCK, 0.2])
def test_at_most_5_percent_of_the_decisions_at_the_limit_are_false(first, limit):
    """The error rate of a share, by exact sums: no count that stopped is counted twice."""
    sizes = looks(first, 4 * first)
    alive, decided, before = {0: 1.0}, {True: 0.0, False: 0.0}, 0
    for n in sizes:
        new = n - before
        weights = [math.comb(new, k) * limit**k * (1 - limit) ** (new - k) for k in range(new + 1)]
        after = {}
        for count, mass in alive.items():
            for k, weight in enumerate(weights):
                after[count + k] = after.get(count + k, 0.0) + mass * weight
        answers = {count: Estimate.share(count, n, len(sizes)).above(limit) for count in after}
        for count, answer in answers.items():
            if answer is not None:
                decided[answer] += after[count]
        alive, before = {c: m for c, m in after.items() if answers[c] is None}, n
    assert decided[True] <= 0.025
    assert decided[False] <= 0.025
    assert sum(decided.values()) + sum(alive.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("lost", "gained"),
    [
        (0.2, 0.1),
        *[
            pytest.param(*each, marks=pytest.mark.long)
            for each in ((0.1, 0.0), (0.105, 0.005), (0.4, 0.3))
        ],
    ],
)
def test_a_difference_at_the_limit_is_decided_falsely_in_5_percent(lost, gained):
    """By simulation: a share ``lost`` of the samples falls and a share ``gained`` rises."""
    generator, sizes = stream(0, "looks"), looks(64, 256)

    def draw(n):
        u = torch.rand(n, generator=generator)
        first = 1 - (u > 1 - gained).double()
        second = 1 - (u < lost).double()
        return lambda m: Estimate.paired(first[:m], second[:m], len(sizes))

    found = decisions(draw, sizes, lost - gained)
    assert found[True] + found[False] <= 0.05


@pytest.mark.parametrize("true", [0.0, 0.02])
def test_a_sound_share_passes_and_a_large_one_fails_after_the_looks(true):
    generator, sizes = stream(1, "looks"), looks(64, 256)

    def draw(n, p):
        u = torch.rand(n, generator=generator) < p
        return lambda m: Estimate.share(int(u[:m].sum()), m, len(sizes))

    assert decisions(lambda n: draw(n, true), sizes, LUCK, 500)[False] >= 0.99
    assert decisions(lambda n: draw(n, 0.25), sizes, LUCK, 500)[True] >= 0.99

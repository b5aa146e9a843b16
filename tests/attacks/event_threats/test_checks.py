"""Checks of the threat sets on events: what is violated is named, and valid batches pass."""

import pytest
import torch

from spikeguard.attacks import Counts, Edits, Flips, Retiming, ThreatViolation, describe


def grid(*places, bins=3):
    """Return a grid [1, bins, 2, 2, 2] with an event at each (t, c, h, w)."""
    x = torch.zeros(1, bins, 2, 2, 2)
    for place in places:
        x[(0, *place)] += 1
    return x


CLEAN = grid((0, 0, 0, 0), (1, 1, 1, 1))
MORE = grid((0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 0), (2, 0, 0, 1))

WRONG = {
    "fraction": (Flips(3), CLEAN * 0.5, "invalid value 0.5"),
    "negative": (Counts(3), CLEAN - 1, "invalid value -1"),
    "nan": (Counts(3), CLEAN * torch.nan, "invalid value nan"),
    "two": (Flips(3), CLEAN * 2, "invalid value 2 in sample 0: the grid is binary"),
    "too many flips": (Flips(1), MORE, "2 changes in sample 0, more than the budget 1"),
    "too many edits": (Edits(1), MORE, "2 changes in sample 0, more than the budget 1"),
    "too many counts": (Counts(1), CLEAN * 3, "4 changes in sample 0, more than the budget 1"),
    "both polarities": (
        Edits(3),
        grid((0, 0, 0, 0), (0, 1, 0, 0), (1, 1, 1, 1)),
        "both polarities in 1 cells of sample 0",
    ),
    "shape": (Flips(3), CLEAN[:, :2], r"shape \[1, 2, 2, 2, 2\]"),
    "precision": (Flips(3), CLEAN.double(), "float64"),
    "line": (Retiming(2), MORE, "number of events on 2 lines of sample 0"),
    "polarity": (
        Retiming(2),
        grid((0, 1, 0, 0), (1, 1, 1, 1)),
        "number of events on 2 lines of sample 0",
    ),
    "far": (Retiming(1), grid((2, 0, 0, 0), (1, 1, 1, 1)), "moves an event by 2 bins in sample 0"),
    "total": (
        Retiming(1, total=1),
        grid((1, 0, 0, 0), (2, 1, 1, 1)),
        "moves events by 2 bins in all",
    ),
    "moved": (Retiming(1, moved=1), grid((1, 0, 0, 0), (2, 1, 1, 1)), "moves 2 events in sample 0"),
}

RIGHT = {
    "flips": (Flips(2), MORE),
    "edits": (Edits(3), grid((0, 1, 0, 0), (1, 1, 1, 1), (2, 0, 0, 0))),
    "counts": (Counts(4), CLEAN * 3),
    "retiming": (Retiming(1, total=2, moved=2), grid((1, 0, 0, 0), (2, 1, 1, 1))),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_violation_is_named(name):
    threat, x_adv, says = WRONG[name]
    with pytest.raises(ThreatViolation, match=says) as error:
        threat.check(x_adv, CLEAN)
    assert "\n" not in str(error.value) and "not scored" in str(error.value)
    assert not threat.contains(x_adv, CLEAN)


@pytest.mark.parametrize("name", RIGHT)
def test_valid_batches_pass(name):
    threat, x_adv = RIGHT[name]
    threat.check(x_adv, CLEAN)
    threat.check(CLEAN, CLEAN)


def test_two_events_cannot_share_a_bin_of_a_binary_line():
    x = grid((0, 0, 0, 0), (1, 0, 0, 0))
    crowded = grid((1, 0, 0, 0), (1, 0, 0, 0))
    with pytest.raises(ThreatViolation, match="no bin may hold more than 1 events"):
        Retiming(1).check(crowded, x)


def test_a_cell_with_both_polarities_in_the_clean_input_may_keep_them():
    x = grid((0, 0, 0, 0), (0, 1, 0, 0))
    Edits(0).check(x, x)
    assert torch.equal(Edits(0).project(x, x), x)


@pytest.mark.parametrize("budget", [-1, 1.5, "3", True, None])
@pytest.mark.parametrize("kind", [Flips, Edits, Counts, Retiming])
def test_budgets_are_whole_numbers(kind, budget):
    with pytest.raises(ValueError, match="whole number >= 0"):
        kind(budget)


def test_names_radii_and_settings():
    sets = [Flips(5), Edits(5), Counts(5), Retiming(1), Retiming(1, total=20, moved=3)]
    assert [each.norm for each in sets] == [
        "flips",
        "edits",
        "counts",
        "retiming",
        "retiming total=20 moved=3",
    ]
    assert [each.eps for each in sets] == [5, 5, 5, 1, 1]
    assert describe(Flips(5)) == {"kind": "Flips", "budget": 5}
    assert describe(Retiming(1)) == {
        "kind": "Retiming",
        "max_shift": 1,
        "total": None,
        "moved": None,
    }

"""Bandit: indices by hand, what a search that finds nothing costs, and that all are used."""

import pytest

from spikeguard.attacks.searches.bandit import Bandit

EXPECTED = {"a": 0.3, "b": 0.4, "c": 0.01}


def test_indices_by_hand():
    """(f + e / (1 + k)) / (c + 300), earlier uses weighted by a quarter each time."""
    bandit = Bandit(EXPECTED)
    assert bandit.index("a") == pytest.approx(0.3 / 300)
    bandit.update("a", share=0.2, cost=300)
    assert bandit.index("a") == pytest.approx((0.2 + 0.15) / 600)
    bandit.update("a", share=0.1, cost=600)
    fooled, cost = 0.25 * 0.2 + 0.1, 0.25 * 300 + 600
    assert bandit.index("a") == pytest.approx((fooled + 0.1) / (cost + 300))
    assert bandit.index("b") == pytest.approx(0.4 / 300)
    assert bandit.uses == {"a": 2, "b": 0, "c": 0}


def test_the_largest_index_is_chosen_among_those_allowed_and_the_first_of_equals():
    bandit = Bandit({"x": 0.1, "y": 0.1, "z": 0.05})
    assert bandit.choose({"z", "y", "x"}) == "x"
    assert bandit.choose({"z", "y"}) == "y"
    assert bandit.choose({"z"}) == "z"


def test_a_productive_search_is_preferred_and_none_is_left_out():
    """a fools a tenth of what is left in its first 50 uses; the others fool nothing."""
    bandit, chosen = Bandit(EXPECTED), []
    while len(chosen) < 200 and "c" not in chosen:
        name = bandit.choose(set(EXPECTED))
        chosen.append(name)
        bandit.update(name, 0.1 if name == "a" and chosen.count("a") <= 50 else 0.0, 300.0)
    assert chosen[:2] == ["b", "a"]  # by what is expected of them
    assert chosen[:55].count("a") >= 50, "while it finds something"
    assert "c" in chosen, "after that"


def test_searches_that_find_nothing_take_turns():
    bandit, chosen = Bandit(dict.fromkeys("abc", 0.01)), []
    for _ in range(9):
        chosen.append(bandit.choose(set("abc")))
        bandit.update(chosen[-1], 0.0, 100.0)
    assert chosen == list("abcabcabc")


def test_a_search_that_costs_more_for_the_same_is_used_less():
    bandit, uses = Bandit({"dear": 0.1, "cheap": 0.1}), []
    for _ in range(20):
        uses.append(bandit.choose({"dear", "cheap"}))
        bandit.update(uses[-1], 0.1, 900.0 if uses[-1] == "dear" else 300.0)
    assert uses.count("cheap") > uses.count("dear") >= 1

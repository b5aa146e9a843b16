"""The outcome of a sweep: Pareto fronts that are known, and an order that no worker decides."""

from types import SimpleNamespace

import pytest

from spikeguard.sweeps.queue import State
from spikeguard.sweeps.table import front, outcome


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([], []),
        ([(1,), (3,), (2,)], [1]),
        ([(3,), (3,), (2,)], [0, 1]),
        ([(0, 2), (1, 1), (2, 0), (0, 0), (1, 0)], [0, 1, 2]),
        ([(0, 1, 1), (1, 0, 1), (0, 0, 1)], [0, 1]),
    ],
)
def test_the_front_is_what_no_other_point_dominates(values, best):
    assert front(values) == best


def trial(point, values):
    record = {"point": point, "values": values, "seeds": {}, "runs": [], "seconds": 1.0}
    return SimpleNamespace(params=point, system_attrs={}, user_attrs={"record": record})


def test_points_are_ordered_by_the_values_of_their_fields_numbers_before_words():
    points = [{"b": b, "a": a} for a in ("y", 10, "x", 2) for b in (1, 0.5)]
    trials = [trial(point, {"up": 0.0, "down": 0.0}) for point in points]
    found = outcome(State(finished=trials), ["a", "b"], {"up": 1, "down": -1})
    order = [(record.point["a"], record.point["b"]) for record in found.records]
    assert order == [
        (2, 0.5),
        (2, 1),
        (10, 0.5),
        (10, 1),
        ("x", 0.5),
        ("x", 1),
        ("y", 0.5),
        ("y", 1),
    ]


def test_signs_decide_what_is_better():
    values = [{"up": 1.0, "down": 5.0}, {"up": 2.0, "down": 4.0}, {"up": 3.0, "down": 9.0}]
    trials = [trial({"a": place}, each) for place, each in enumerate(values)]
    assert outcome(State(finished=trials), ["a"], {"up": 1, "down": -1}).best == [1, 2]
    assert outcome(State(finished=trials), ["a"], {"up": 1}).best == [2]
    assert outcome(State(finished=trials), ["a"], {"down": -1}).best == [1]

"""Curves of certificates and attacks, worked by hand on four images."""

import csv
import io
import json

import pytest

from spikeguard.certification import Certification, Radius

RECORDS = (
    Radius(0, 1, 1, 990, 0.97, 0.5),
    Radius(1, 2, 2, 900, 0.87, 0.2),
    Radius(2, 0, 1, 950, 0.92, 0.3),  # certainly wrong
    Radius(3, 0, 0, 500, 0.45, 0.0),  # abstained
)
ATTACKS = {0.1: (False, False, False, True), 0.4: (False, True, False, False)}
FOUND = Certification("noise", "l2", {"n": 1000}, RECORDS, ATTACKS, {"weights": "w"})


def test_both_curves_by_hand():
    """At 0.4 the image that was lost at 0.1 is still lost."""
    shares = {r: FOUND.certified(r).accuracy for r in (0.0, 0.1, 0.2, 0.4, 0.5)}
    assert shares == {0.0: 0.5, 0.1: 0.5, 0.2: 0.25, 0.4: 0.25, 0.5: 0.0}
    bounds = {r: FOUND.attacked(r).accuracy for r in (0.0, 0.1, 0.4)}
    assert bounds == {0.0: 0.75, 0.1: 0.5, 0.4: 0.25}
    assert FOUND.attacked(0.2) is None
    assert FOUND.abstained.accuracy == 0.25
    assert all(FOUND.certified(r).accuracy <= bound for r, bound in bounds.items())
    assert FOUND.certified(0.1).n == 4


def test_an_attack_inside_a_certified_ball_is_a_contradiction():
    assert FOUND.contradictions == 0
    planted = Certification("noise", "l2", {}, RECORDS, {0.4: (True, True, True, True)})
    assert planted.contradictions == 1  # the first image alone is certified at 0.4


def test_the_csv_holds_the_curve():
    rows = list(csv.DictReader(io.StringIO(FOUND.csv())))
    at = {float(row["radius"]): row for row in rows}
    assert float(at[0.4]["certified"]) == 0.25 and float(at[0.4]["attacked"]) == 0.25
    assert float(at[0.0]["certified"]) == 0.5 and float(at[max(at)]["certified"]) == 0
    assert sum(row["attacked"] != "" for row in rows) == 3
    certified = [float(row["certified"]) for row in rows]
    assert certified == sorted(certified, reverse=True)


def test_it_is_read_back_and_cut_to_its_first_images():
    card = json.loads(json.dumps(FOUND.to_dict()))
    assert Certification.from_dict(card) == FOUND
    assert FOUND.first(2).attacks == {0.1: (False, False), 0.4: (False, True)}
    longer = Certification("noise", "l2", {}, RECORDS, {0.1: (False, False)})
    assert longer.first(4).attacks == {} and longer.first(2).attacks == {0.1: (False, False)}
    for damage in ("records", "attacks", "norm"):
        with pytest.raises((LookupError, TypeError, ValueError)):
            Certification.from_dict({k: v for k, v in card.items() if k != damage})


def test_an_attack_on_the_first_images_is_scored_on_these():
    """The attack of 0.1 covers three images: one is certainly wrong, one broken. The image that
    was broken at 0.1 is lost at 0.4 too, where all four are covered."""
    found = Certification(
        "noise", "l2", {}, RECORDS, {0.1: (False, True, False), 0.4: (False,) * 4, 0.6: ()}
    )
    scores = [found.attacked(radius) for radius in (0.1, 0.4)]
    assert [(score.accuracy, score.n) for score in scores] == [(1 / 3, 3), (0.5, 4)]
    assert found.attacked(0.6) is None
    assert found.contradictions == 1

"""Verdict cards: an audit judges the printed number of its own threat set only."""

from types import SimpleNamespace

import pytest

from spikeguard.attacks import PGD, Linf
from spikeguard.attacks.base import describe
from spikeguard.auditing.findings import Verdict
from spikeguard.auditing.numbers import Bound, PrintedNumber
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.readers.attack_results import AttackResult
from spikeguard.reporting.sections.results import section_results
from spikeguard.reporting.sections.verdict_cards import audited_at, cards
from spikeguard.reporting.standings import radii

CLEAN, OWN, WORST = (Score.from_share(share, 100) for share in (0.9, 0.6, 0.1))


def audit(norm, eps):
    printed = PrintedNumber("PGD-40", "not judged", why="planted")
    settings = {"samples": 64, "threat": {"norm": norm, "eps": eps}}
    return Verdict((), Bound("open"), printed, settings)


def attacked(norm, eps):
    """PGD with the own surrogate at 60 %, and a worst case of 10 %."""
    settings = {"pgd40": describe(PGD(Linf(0.1), steps=40))}
    scores = ({"pgd40": OWN}, {"pgd40": ()}, WORST, 0.0)
    return AttackResult("x", "x", norm, eps, 1, 1, None, CLEAN, *scores, settings=settings)


def network(audited, *results):
    return SimpleNamespace(
        label="net", attacked=results, checkpoint="best", audited=audited, foreign=None, path="run",
        membrane=None, trained=None, recipe_text="", data="digits",
    )  # fmt: skip


def card(audited, *results):
    shown = network(audited, *results)
    (found,) = cards([shown], radii([shown]), {"net": None})
    return found


@pytest.mark.parametrize(
    ("audited", "silent"),
    [(("l2", 0.5), True), (("linf", 0.5), False), (("l2", 0.4), False), (None, False)],
)
def test_the_sentence_stays_unless_the_audit_is_at_the_same_radius_and_norm(audited, silent):
    sentence = card(audited and audit(*audited), attacked("l2", 0.5)).sentence
    said = "At ε = 0.5 (L2, n = 100) PGD-40 with its own surrogate is 50.0 points too optimistic"
    assert sentence == "" if silent else sentence.startswith(said)


@pytest.mark.parametrize(
    ("threat", "words"),
    [
        (("linf", 8 / 255), "at L∞, ε = 8/255, n = 64"),
        (("l2", 0.5), "at L2, ε = 0.5, n = 64"),
        (("edits", 20.0), "at edits budget=20, n = 64"),
    ],
)
def test_an_audit_names_its_threat_set(threat, words):
    assert audited_at(audit(*threat)) == words
    assert card(audit(*threat), attacked(*threat)).audited_at == words
    assert audited_at(None) == ""


def test_the_largest_gap_is_named_with_its_norm_where_there_are_several():
    shown = network(None, attacked("linf", 0.5), attacked("l2", 0.5))
    places = radii([shown])
    assert "(L∞, ε = 0.5)" in section_results([shown], places, [])["radius"]
    assert "(ε = 0.5)" in section_results([shown], places[:1], [])["radius"]

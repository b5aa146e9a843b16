"""Order of the rows of a table, and the worst case over several suites."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from spikeguard.attacks import (
    ASSG,
    BPTR,
    MIFGSM,
    NES,
    PGD,
    RGA,
    SAPGD,
    Backprop,
    EoT,
    Graphed,
    Linf,
    SwapSurrogate,
    margin,
)
from spikeguard.attacks.base import describe
from spikeguard.evaluation.activity import ActivityCost, Mean
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.readers.attack_results import AttackResult, read_attacked
from spikeguard.reporting.standings import radii
from spikeguard.storage.atomic_files import write_json

SET = Linf(0.1)


def result(suite, rows, worst, mark=""):
    attacks = {f"{name}{mark}": Score.from_share(share, 100) for name, share in rows.items()}
    clean, lowest = Score.from_share(0.9, 100), Score.from_share(worst, 100)
    where = (suite, suite, "linf", 0.1, 10, 4, None)
    return AttackResult(*where, clean, attacks, dict.fromkeys(attacks, ()), lowest, 0.0)


def cascade(suite, rows, mark=""):
    return result(suite, rows, min(rows.values()), f"{mark} + all cheaper of {suite}")


def place(*networks):
    named = {"checkpoint": "best"}
    found = [SimpleNamespace(label=f"{k}", attacked=a, **named) for k, a in enumerate(networks)]
    (radius,) = radii(found)
    return radius


def test_the_rows_of_a_cascade_stay_in_the_order_in_which_they_ran():
    """By strength noise would come first, and apgd-ce before its variants: rows that rise."""
    ran = {"fgsm": 0.8, "noise": 0.7, "pgd10": 0.6, "apgd-ce/width2": 0.5, "apgd-ce": 0.4}
    plain = result("demo", {"pgd10": 0.65, "noise": 0.85}, 0.6)
    mixed = cascade("snn", {"noise": 0.79, "fgsm": 0.69}, " in bf16")
    radius = place([cascade("snn", ran), plain, mixed])
    scores = radius.standings["0"].attacks
    assert list(scores) == radius.attacks
    assert radius.attacks[:2] == ["noise", "pgd10"]
    assert [name.split()[0] for name in radius.attacks[2:]] == [*ran, "noise", "fgsm"]
    assert [scores[name].accuracy for name in radius.attacks[2:7]] == list(ran.values())


def test_a_network_that_lacks_an_attack_does_not_change_the_order():
    few, all_ = {"fgsm": 0.8, "square": 0.5}, {"fgsm": 0.8, "pgd10": 0.6, "square": 0.5}
    radius = place([cascade("snn", few)], [cascade("snn", all_)])
    assert [name.split()[0] for name in radius.attacks] == list(all_)


def test_the_worst_of_all_suites_is_not_above_an_attack_of_the_table():
    """A noisy worst case can be scored above one attack of another suite."""
    radius = place([result("demo", {"fgsm": 0.8, "pgd10": 0.42}, 0.45), cascade("snn", {"a": 0.5})])
    assert radius.standings["0"].worst_case.accuracy == 0.42


def test_names_of_attacks_may_hold_dots():
    """A dot in the name of another package's attack is no width."""
    names = ["x/a.b", "x/...", "x/width0.5", "x/v1.2.3", "y:z/a.", "pgd10"]
    radius = place([result("demo", dict.fromkeys(names, 0.5), 0.5)])
    assert set(radius.attacks) == set(names)
    assert radius.attacks[0] == "pgd10"


def test_the_activity_is_that_of_the_first_result_that_has_it():
    counts = ActivityCost(64, *(3 * [Mean(5.0, 4.0, 6.0)]), dense=9.0)
    old = result("demo", {"fgsm": 0.8}, 0.8)
    new = replace(result("quick", {"pgd10": 0.7}, 0.7), activity=counts)
    assert place([old]).standings["0"].activity is None
    assert place([old, new]).standings["0"].activity == counts


def stored(tmp_path, attacks, worst, **card):
    """Read the result of some attacks, each with its accuracy, as an evaluation stores them."""

    def score(share):
        return asdict(Score.from_share(share, 100))

    found = {
        name: {**score(share), "settings": describe(a)} for name, (share, a) in attacks.items()
    }
    threat = {"norm": "linf", "eps": 0.1}
    card = {"threat": threat, "draws": 1, "clean": score(0.9), "attacks": found, **card}
    write_json(tmp_path / "x.json", {**card, "worst_case": score(worst), "zero_gradient": 0.0})
    return read_attacked(tmp_path / "x.json")


OWN = (Backprop(), EoT(4), Graphed(Backprop()))
OTHERS = (ASSG(), EoT(4, RGA()), BPTR(), SwapSurrogate(2.0), NES())


@pytest.mark.parametrize("gradient", OTHERS, ids=lambda each: type(each).__name__)
def test_every_gradient_but_that_of_the_own_surrogate_is_another_one(tmp_path, gradient):
    attacks = {"pgd40": (0.5, PGD(SET, steps=40)), "sapgd/x": (0.02, SAPGD(SET, gradient=gradient))}
    standing = place([stored(tmp_path, attacks, 0.02)]).standings["0"]
    assert (standing.own, standing.printed, standing.swept) == ({"pgd40"}, "pgd40", True)


@pytest.mark.parametrize("gradient", OWN)
def test_a_line_is_printed_if_it_is_pgd_with_the_own_surrogate(tmp_path, gradient):
    """What the attack is called does not matter: 15 % and a worst case of 0 % are 15 points."""
    attacks = {
        "pgd20": (0.2, PGD(SET, steps=20)),
        "pgd steps=40": (0.15, PGD(SET, steps=40, gradient=gradient)),
        "pgd steps=50 loss=margin": (0.1, PGD(SET, steps=50, loss=margin)),
        "mifgsm": (0.1, MIFGSM(SET, steps=90)),
    }
    standing = place([stored(tmp_path, attacks, 0.0)]).standings["0"]
    assert (standing.printed, standing.gap) == ("pgd steps=40", 0.15)
    assert not standing.swept


def test_of_equal_steps_the_strongest_is_printed_and_none_of_a_cascade(tmp_path):
    attacks = {"pgd40": (0.5, PGD(SET)), "pgd steps=40": (0.4, PGD(SET)), "a": (0.6, PGD(SET))}
    attacks = {name: (share, replace(a, steps=40)) for name, (share, a) in attacks.items()}
    assert place([stored(tmp_path, attacks, 0.4)]).standings["0"].printed == "pgd steps=40"
    found = stored(tmp_path, attacks, 0.4, cascade=True, suite="demo")
    assert place([found]).standings["0"].printed is None


def test_results_of_another_checkpoint_are_left_out():
    last = [result("papers", {"pgd10": 0.5}, 0.5)]
    best = [replace(result("demo", {"pgd10": 0.3}, 0.3), checkpoint="best")]
    last = [replace(each, checkpoint="last") for each in last]
    (radius,) = radii([SimpleNamespace(label="0", attacked=last + best, checkpoint="last")])
    standing = radius.standings["0"]
    assert standing.worst_case.accuracy == 0.5
    assert (standing.left_out, standing.elsewhere) == ((), {best[0].title: "best"})
    assert standing.instead == ""
    (radius,) = radii([SimpleNamespace(label="0", attacked=best, checkpoint="last")])
    assert radius.standings["0"].instead == "best"
    (radius,) = radii([SimpleNamespace(label="0", attacked=best, checkpoint=None)])
    assert radius.standings["0"].instead == ""


def test_a_suite_of_which_no_attack_fitted_has_a_worst_case():
    standing = place([result("hart", {}, 0.9)]).standings["0"]
    assert standing.worst_case.accuracy == 0.9

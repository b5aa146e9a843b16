"""Order of the rows of a table, and the worst case over several suites."""

from dataclasses import replace
from types import SimpleNamespace

from spikeguard.evaluation.activity import ActivityCost, Mean
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.readers.attack_results import AttackResult
from spikeguard.reporting.standings import radii


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


def test_results_of_another_checkpoint_are_left_out():
    last = [result("papers", {"pgd10": 0.5}, 0.5)]
    best = [replace(result("demo", {"pgd10": 0.3}, 0.3), checkpoint="best")]
    last = [replace(each, checkpoint="last") for each in last]
    (radius,) = radii([SimpleNamespace(label="0", attacked=last + best, checkpoint="last")])
    standing = radius.standings["0"]
    assert standing.worst_case.accuracy == 0.5
    assert standing.left_out == (best[0].title,)


def test_a_suite_of_which_no_attack_fitted_has_a_worst_case():
    standing = place([result("hart", {}, 0.9)]).standings["0"]
    assert standing.worst_case.accuracy == 0.9

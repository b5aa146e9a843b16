"""Names of attacks in the report."""

import pytest

from spikeguard.reporting import formatting
from spikeguard.reporting.standings import _strength


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("pgd40", "PGD-40"),
        ("pgd40/width0.5", "PGD-40, width 0.5"),
        ("rfgsm", "R+FGSM"),
        ("pgd10 in bf16", "PGD-10 in bf16"),
        ("pgd10/width1 + all cheaper of quick", "PGD-10, width 1 + all cheaper of quick"),
        ("mtpgd steps=40 momentum=0.9", "MTPGD steps=40 momentum=0.9"),
        ("rfgsm variant=stog", "R+FGSM variant=stog"),
        ("greedy/width2 + all cheaper of events", "Greedy, width 2 + all cheaper of events"),
        ("sda", "SDA"),
        ("raw-events/assg", "Raw events, ASSG"),
        ("pgd step_size=2/255 in bf16", "PGD step_size=2/255 in bf16"),
    ],
)
def test_the_name_of_an_attack(name, written):
    assert formatting.attack(name) == written


def test_attack_lines_stand_among_the_attacks_by_their_steps():
    """A slash or a point in a setting is no width."""
    names = ["pgd steps=40", "pgd20", "pgd step_size=2/255 steps=3", "x/a.b", "fgsm"]
    assert sorted(names, key=_strength) == [
        "fgsm",
        "pgd step_size=2/255 steps=3",
        "pgd20",
        "pgd steps=40",
        "x/a.b",
    ]


@pytest.mark.parametrize(
    ("norm", "eps", "alone", "whole"),
    [
        ("linf", 8 / 255, "ε = 8/255", "L∞, ε = 8/255"),
        ("edits", 20.0, "edits budget=20", "edits budget=20"),
        (
            "retiming moved=50",
            1.0,
            "retiming max_shift=1 moved=50",
            "retiming max_shift=1 moved=50",
        ),
    ],
)
def test_a_threat_on_events_is_written_with_its_budgets(norm, eps, alone, whole):
    assert formatting.radius(eps, norm) == alone
    assert formatting.threat(norm, eps) == whole

"""Threat sets by name, as in recipes, results and on the command line."""

import pytest

from spikeguard.attacks import Counts, Edits, Flips, Linf, Retiming, parse_threat, threat_of
from spikeguard.attacks.threat_names import is_event_norm, norm_of, threat_line

SETS = {
    "flips budget=50": Flips(50),
    "edits budget=3": Edits(3),
    "counts budget=3": Counts(3),
    "retiming max_shift=1": Retiming(1),
    "retiming max_shift=2 total=20": Retiming(2, total=20),
    "retiming max_shift=2 total=20 moved=5": Retiming(2, total=20, moved=5),
    "linf eps=8/255": Linf(8 / 255),
    "linf eps=0.5 peak=16": Linf(0.5, peak=16),
}


@pytest.mark.parametrize("line", SETS)
def test_a_line_its_norm_and_radius_and_its_set_name_each_other(line):
    norm, eps = parse_threat(line)
    assert threat_of(norm, eps) == SETS[line]
    assert (norm_of(SETS[line]), SETS[line].eps) == (norm, eps)
    assert threat_line(norm, eps) == line
    assert is_event_norm(norm) == (not line.startswith("linf"))


def test_the_order_of_words_does_not_matter():
    assert parse_threat("retiming moved=5 max_shift=2 total=20") == ("retiming total=20 moved=5", 2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("flip budget=5", "Did you mean 'flips'"),
        ("", "norm is one of"),
        ("flips", "flips needs budget; write"),
        ("flips budget=1.5", "whole number >= 0, got 1.5"),
        ("flips budget=-1", "whole number >= 0, got -1"),
        ("flips budget=many", "budget is a number, got 'many'"),
        ("flips budget=1/0", "budget is a number, got '1/0'"),
        ("flips budget=1e999", "whole number >= 0, got inf"),
        ("flips eps=5", "Flips has budget, got 'eps=5'"),
        ("flips 5", "Flips has budget, got '5'"),
        ("flips budget=1 budget=2", "budget is given twice"),
        ("retiming total=20", "retiming needs max_shift"),
        ("linf eps=3", "eps is in pixel units"),
    ],
)
def test_a_line_that_is_no_threat_set_is_rejected_in_one_line(line, says):
    with pytest.raises(ValueError, match=says) as error:
        parse_threat(line)
    assert "\n" not in str(error.value)


def test_a_norm_cannot_hold_the_radius():
    with pytest.raises(ValueError, match="budget is the radius"):
        threat_of("flips budget=3", 3)

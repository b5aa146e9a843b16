"""Table of accuracies: the columns of activity, and networks whose results have none."""

from dataclasses import replace
from types import SimpleNamespace

from spikeguard.evaluation.activity import ActivityCost, Mean
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.readers.attack_results import AttackResult
from spikeguard.reporting.sections.tables import score_table
from spikeguard.reporting.standings import radii

SCORE = Score.from_share(0.5, 100)
PLAIN = AttackResult(
    *("quick", "quick", "linf", 0.1, 1, 1, None, SCORE, {"fgsm": SCORE}, {"fgsm": ()}, SCORE, 0.0)
)
COUNTS = ActivityCost(
    64, Mean(1234.4, 1200.0, 1268.8), Mean(10_000, 9_000, 11_000), Mean(2_345, 2e3, 3e3), 9e4
)


def table(*results):
    networks = [
        SimpleNamespace(
            checkpoint="best",
            label=f"{k}",
            attacked=each if isinstance(each, list) else [each],
            audited=None,
            path="run",
            foreign=None,
        )
        for k, each in enumerate(results)
    ]
    (place,) = radii(networks)
    return score_table(place, networks)


def test_results_with_activity_have_two_more_columns():
    found = table(replace(PLAIN, activity=COUNTS), PLAIN)
    assert found.head[-2:] == ("Spikes an image", "Operations an image")
    (_, new, _), (_, old, _) = found.rows
    assert [(c.value, c.interval) for c in new[-2:]] == [
        ("1,234", "[1,200, 1,269]"),
        ("12,345", ""),
    ]
    assert [c.value for c in old[-2:]] == ["unknown", "unknown"] and old[-1].missing
    assert len(new) == len(old) == len(found.head)
    assert "means of the first 64 clean images" in found.notes[0]


def test_results_without_activity_have_the_columns_of_before():
    found = table(PLAIN, PLAIN)
    assert found.head[-1] == "Images" and all(
        len(row) == len(found.head) for _, row, _ in found.rows
    )
    assert not any("clean images" in note for note in found.notes)


def test_results_of_another_checkpoint_are_named_with_it():
    """Both are of 100 images, so that their number is no reason."""
    last = replace(PLAIN, name="quick-last", checkpoint="last")
    (note,) = [note for note in table([PLAIN, last]).notes if "not used" in note]
    assert note == '0: not used, because the checkpoint differs ("last"): quick-last.'
    (note,) = [note for note in table(last).notes if "checkpoint" in note]
    assert (
        note
        == '0: all results here are of checkpoint "last", not of the one that the recipe names.'
    )
    fewer = replace(PLAIN, name="few", clean=Score.from_share(0.5, 50))
    (note,) = [note for note in table([PLAIN, fewer]).notes if "not used" in note]
    assert note == "0: not used, because the number of images differs: few."


def test_counts_of_activity_name_their_images_and_are_not_negative():
    """A normal interval of a mean near 0 would begin below 0."""
    few = replace(COUNTS, images=4, spikes=Mean(1.0, -0.3, 2.3))
    found = table(replace(PLAIN, activity=COUNTS), replace(PLAIN, activity=few))
    assert "means of the first 64 (1: 4) clean images" in found.notes[0]
    assert found.rows[1][1][-2].interval == "[0, 2]"

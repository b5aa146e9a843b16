"""The curve of a converging search: a hand-made record on the chart and in the table."""

import itertools
import json

import pytest

from spikeguard.reporting.charts.base import COLOURS
from spikeguard.reporting.readers.collect import collect
from spikeguard.reporting.renderer import report
from spikeguard.reporting.sections.search_curve import search_chart, search_notes, search_rows
from tests.toys.report_pages import text_of
from tests.toys.report_runs import plant_attacks, plant_run
from tests.toys.search_records import record


def traces(found):
    figure = search_chart(found, id="s", title="t").figure
    return {trace.name: trace for trace in figure.data}


def test_each_kind_of_search_has_its_steps_and_its_colour():
    drawn = traces(record())
    kinds = ["SA-PGD", "Hill climbing", "PGD", "APGD-T", "Square"]  # 119, 25, 22, 0 and 0 found
    assert list(drawn) == [None, "estimate", *kinds]
    assert [drawn[kind].line.color for kind in kinds] == list(COLOURS[:5])
    climb = drawn["Hill climbing"]
    assert climb.x == (5.0, 7.5, 7.5, None, 9.5, 14.0, 14.0, None)
    assert climb.y == (35, 35, 26, None, 22, 22, 18.5, None)
    assert climb.customdata[0] == "Hill climbing, 1: 18 found, 52 left after 7.5 CPU s"
    assert drawn["PGD"].x[:3] == (0.125, 0.2, 0.2)  # a log axis has no 0
    assert drawn["PGD"].y[:3] == (100, 100, 89)


def test_the_drawn_steps_are_one_curve_from_all_images_to_the_survivors():
    kinds = [trace for name, trace in traces(record()).items() if name not in (None, "estimate")]
    steps = sorted(
        (trace.x[k], trace.x[k + 1], trace.y[k], trace.y[k + 2])
        for trace in kinds
        for k in range(0, len(trace.x), 4)
    )
    assert len(steps) == 9 and steps[0][2] == 100 and steps[-1][3] == 17
    for (_, end, _, left), (start, _, level, _) in itertools.pairwise(steps):
        assert (end, left) == (start, level)


def test_the_band_opens_from_the_last_point_to_ten_times_its_time():
    drawn = traces(record())
    assert drawn[None].x == (32, 320, 320, 32)
    assert drawn[None].y == (17, 16.5, 12.5, 17)  # 34, less 1 and less 9 of 200
    assert drawn["estimate"].y == (17, 15)
    more = record() | {"estimate": {"more": 40.0, "low": 20.0, "high": 60.0}}
    assert traces(more)[None].y == (17, 7, 0, 17)  # no more than are left
    assert None not in traces(record() | {"estimate": None})


def test_the_rows_add_up():
    assert [(row[0], *row[2:]) for row in search_rows(record())] == [
        ("SA-PGD, ASSG without time", "107", "88,000", "7.9"),
        ("PGD, own surrogate", "22", "2,000", "0.2"),
        ("Hill climbing, 1", "18", "0", "2.5"),
        ("SA-PGD, ASSG", "12", "35,000", "2.9"),
        ("Hill climbing, 2", "7", "0", "4.5"),
        ("2 searches that found nothing", "0", "25,000", "14.0"),
        ("all", "166", "150,000", "32.0"),
    ]
    colours = [row[1] for row in search_rows(record())]
    assert colours == [COLOURS[k] for k in (0, 2, 1, 0, 1)] + ["", ""]


def test_the_sentences_name_effort_rule_and_estimate():
    assert search_notes(record()) == [
        "34 of 200 attacked images (17.0 %) survive after 750 gradients an image and 32.0 CPU "
        "seconds.",
        "Ended by: the last 40 % of the budget found nothing.",
        "Estimate, not a measurement: 10 times the budget is likely to find 4.0 more images, "
        "between 1.0 and 9.0.",
    ]
    early = record() | {"estimate": {"more": 34.0, "low": 34.0, "high": 34.0}}
    assert search_notes(early)[2] == "Too early to estimate what 10 times the budget would find."
    none = record()
    none["curve"][-1]["left"] = 0
    assert len(search_notes(none)) == 2, "nothing is left to find"
    empty = {"curve": [], "n": 3, "ended": "no image is right without an attack", "estimate": None}
    assert search_notes(empty)[0].endswith("survive after no search ran.")
    assert [row[0] for row in search_rows(empty)] == ["all"]
    assert not search_chart(empty, id="s", title="t").figure.data


def test_kinds_beyond_the_colours_share_one():
    many = record()
    many["curve"] = [
        {"search": f"k{k}/x", "gradients": k, "cpu_s": k + 1.0, "left": 200 - k * (k + 1) // 2}
        for k in range(10)
    ]
    assert list(traces(many))[2:] == ["k9", "k8", "k7", "k6", "k5", "k4", "other"]
    assert len(traces(many)["other"].x) == 4 * 4


@pytest.fixture
def run(tmp_path):
    path = plant_run(tmp_path / "run", "Planted")
    file = plant_attacks(path, 0.1, 90.0, (80.0, 70.0, 17.0), names=("fgsm", "pgd10"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"search": record()}))
    return path


def test_a_stored_record_is_on_the_page(run, tmp_path):
    page = report([run], tmp_path / "report.html")
    text = text_of(page)
    assert "34 of 200 attacked images" in text
    assert "Hill climbing, 1 18 0 2.5" in text and "all 166 150,000 32.0" in text
    assert 'id="search-0"' in page.read_text() and '"search-0":{' in page.read_text()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("left", 60, "survivors must not rise"),
        ("left", -1, "survivors must not rise"),
        ("cpu_s", 1.0, "must not fall"),
        ("gradients", float("nan"), "must not fall"),
        ("cpu_s", "soon", "could not convert"),
    ],
)
def test_a_record_that_does_not_add_up_is_refused(run, key, value, message):
    (file,) = (run / "attacks").glob("*.json")
    card = json.loads(file.read_text())
    card["search"]["curve"][4][key] = value
    file.write_text(json.dumps(card))
    with pytest.raises(ValueError, match=message):
        collect([run])


def test_an_estimate_out_of_order_is_refused(run):
    (file,) = (run / "attacks").glob("*.json")
    card = json.loads(file.read_text())
    card["search"]["estimate"]["low"] = 5.0
    file.write_text(json.dumps(card))
    with pytest.raises(ValueError, match="low <= more <= high"):
        collect([run])

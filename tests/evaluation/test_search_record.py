"""merged_record: curve, sums and estimate of hand-made blocks."""

import json

import pytest

from spikeguard.evaluation.search_record import merged_record
from spikeguard.evaluation.statistics import poisson_interval

NAMES = ("search", "cost", "spent", "gradients", "fooled", "left", "cpu_s")


def block(start, ended, *rounds, samples=None):
    made = [dict(zip(NAMES, each, strict=True)) for each in rounds]
    return {"samples": samples or int(start), "start": start, "ended": ended, "rounds": made}


FIRST = block(
    *(10.0, "the curve is flat"),
    ("cut", 300.0, 300.0, 2000.0, 6.0, 4.0, 1.0),
    ("climb", 100.0, 400.0, 400.0, 1.0, 3.0, 0.5),
    ("cut", 600.0, 1000.0, 1800.0, 1.0, 2.0, 2.0),
)
SECOND = block(
    *(5.0, "no sample is left"),
    ("cut", 300.0, 300.0, 900.0, 4.0, 1.0, 0.25),
    ("rga", 100.0, 400.0, 100.0, 1.0, 0.0, 0.125),
)


def merged(*blocks):
    return merged_record([json.dumps([each]) for each in blocks])


def test_the_curve_of_blocks_searched_side_by_side():
    """By gradients per remaining sample; a block that ended stays at what it left."""
    curve = merged(FIRST, SECOND)["curve"]
    assert [(p["search"], p["spent"], p["gradients"], p["cpu_s"], p["left"]) for p in curve] == [
        ("cut", 300.0, 2000.0, 1.0, 9.0),
        ("cut", 300.0, 2900.0, 1.25, 5.0),
        ("climb", 400.0, 3300.0, 1.75, 4.0),
        ("rga", 400.0, 3400.0, 1.875, 3.0),
        ("cut", 1000.0, 5200.0, 3.875, 2.0),
    ]


def test_the_sums_of_each_search_and_the_rules():
    record = merged(FIRST, SECOND)
    assert record["n"] == 15
    assert record["searches"] == {
        "cut": {"uses": 3, "fooled": 11.0, "gradients": 4700.0, "cpu_s": 3.25},
        "climb": {"uses": 1, "fooled": 1.0, "gradients": 400.0, "cpu_s": 0.5},
        "rga": {"uses": 1, "fooled": 1.0, "gradients": 100.0, "cpu_s": 0.125},
    }
    rules = "the curve is flat (1 of 2 blocks), no sample is left (1 of 2 blocks)"
    assert record["ended"] == rules
    assert merged(FIRST, FIRST)["ended"] == "the curve is flat"


def test_the_estimate_is_twice_the_finds_of_the_last_factor_sqrt_10_of_each_block():
    """First: later than 316 gradients, two; second: later than 126, all five. 2 are left."""
    record = merged(FIRST)
    low, high = poisson_interval(2)
    assert record["estimate"] == {"more": 2.0, "low": pytest.approx(2 * low), "high": 2.0}
    assert high > 1 > low
    many = block(1000.0, "the budget is spent", ("cut", 300.0, 300.0, 1.0, 8.0, 992.0, 1.0))
    low, high = poisson_interval(8)
    wanted = {"more": 16.0, "low": pytest.approx(2 * low), "high": pytest.approx(2 * high)}
    assert merged(many)["estimate"] == wanted
    assert merged(SECOND)["estimate"] == {"more": 0, "low": 0, "high": 0}, "nothing is left"


def test_blocks_of_one_shard_or_of_several_are_the_same():
    together = merged_record([json.dumps([FIRST, SECOND])])
    assert together == merged(FIRST, SECOND)


def test_nothing_found_late_leaves_an_upper_limit():
    """The exact upper limit of a Poisson mean with no event is -ln 0.025 = 3.69."""
    quiet = block(
        *(50.0, "the curve is flat"),
        ("cut", 300.0, 300.0, 1.0, 20.0, 30.0, 1.0),
        ("cut", 900.0, 3000.0, 1.0, 0.0, 30.0, 1.0),
    )
    found = merged(quiet)["estimate"]
    assert (found["more"], found["low"]) == (0, 0)
    assert found["high"] == pytest.approx(2 * 3.689, rel=0.02)


def test_a_block_with_nothing_left_says_nothing_about_the_others():
    """Of 300 samples 250 fall at once in their block; the flat block of 50 has no late finds."""
    flat = block(
        *(50.0, "the curve is flat"),
        ("cut", 300.0, 300.0, 1.0, 20.0, 30.0, 1.0),
        ("cut", 2700.0, 3000.0, 1.0, 0.0, 30.0, 1.0),
    )
    gone = block(250.0, "no sample is left", ("cut", 300.0, 300.0, 1.0, 250.0, 0.0, 1.0))
    alone = merged(flat)["estimate"]
    assert merged(flat, gone)["estimate"] == alone
    assert alone == {"more": 0, "low": 0, "high": pytest.approx(2 * poisson_interval(0)[1])}


def test_no_block_loses_more_than_it_has_left():
    few = block(50.0, "the budget is spent", ("cut", 300.0, 300.0, 1.0, 47.0, 3.0, 1.0))
    many = block(90.0, "the budget is spent", ("cut", 300.0, 300.0, 1.0, 2.0, 88.0, 1.0))
    estimate = merged(few, many)["estimate"]
    assert estimate["more"] == 3 + 4
    assert estimate["low"] <= 7 <= estimate["high"] <= 91


def test_with_noise_there_is_no_estimate():
    record = merged_record([json.dumps([FIRST])], noisy=True)
    assert record["estimate"] is None and record["noisy"]

"""Plots of analyses become charts: legends and axes."""

import pytest

from spikeguard.analysis.plots import Heat, Plot, Series
from spikeguard.reporting.charts.analyses import drawn


def figure(*marks):
    return drawn(Plot("p", "Title", "Finding", marks), {}, id="p").figure


@pytest.mark.parametrize(("x", "kind"), [(["1", "2"], "category"), ([1, 2], None)])
def test_an_axis_of_text_has_one_place_for_each_word(x, kind):
    assert figure(Series(x, [3, 4], "a")).layout.xaxis.type == kind
    assert figure(Heat([[1, 2]], x, ["a"])).layout.xaxis.type == kind


def test_a_line_can_stay_out_of_the_legend_and_keeps_its_name():
    shown = figure(
        Series([1, 2], [3, 4], "a"),
        Series([1, 2], [3, 4], "b"),
        Series([1, 2], [5, 6], "a, random", legend=False),
        Series([1, 2], [5, 6]),
    )
    assert [(each.name, each.showlegend) for each in shown.data] == [
        ("a", True),
        ("b", True),
        ("a, random", False),
        ("", False),
    ]
    assert shown.layout.showlegend

"""Plots of analyses become charts: legends, axes, words on lines, images."""

import numpy as np
import pytest

from spikeguard.analysis.plots import Heat, Plot, Rule, Series
from spikeguard.reporting.charts.analyses import drawn
from spikeguard.reporting.charts.base import Look


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


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_the_words_of_a_line_are_at_the_line_on_both_kinds_of_axis(axis, log):
    """Shapes take the number itself, words its logarithm on a logarithmic axis."""
    plot = Plot(
        "p", "title", "summary", [Series([1, 10, 100], [1, 10, 100])],
        x_log=log, y_log=log, rules=[Rule(10, "ten", axis)],
    )  # fmt: skip
    chart = drawn(plot, {}, id="p").figure
    (words,) = chart.layout.annotations
    assert getattr(words, axis) == (1 if log else 10)
    assert getattr(chart.layout.shapes[0], f"{axis}0") == 10


def test_a_grey_image_leaves_the_room_of_a_colour_bar():
    z = np.zeros((2, 3))
    widths = {}
    for grey in (True, False):
        heat = Heat(z, range(3), range(2), low=0, high=1, image=True, grey=grey)
        chart = figure(heat)
        assert chart.data[0].showscale is not grey
        widths[grey] = chart.layout.margin.r
    assert widths[True] > widths[False]


@pytest.mark.parametrize("kind", ["line", "steps"])
@pytest.mark.parametrize("points", [10, 500])
def test_networks_differ_by_marker_on_short_and_on_long_lines(kind, points):
    look = {name: Look("#333333", shape) for name, shape in (("a", "circle"), ("b", "square"))}
    x = np.arange(points)
    marks = [Series(x, x, name, name, kind=kind) for name in look]
    chart = drawn(Plot("p", "Title", "Finding", marks), look, id="p").figure
    assert [each.mode for each in chart.data] == ["lines+markers"] * 2
    assert [each.marker.symbol for each in chart.data] == ["circle", "square"]
    shown = {each.marker.maxdisplayed for each in chart.data}
    assert shown == ({0} if (kind, points) == ("line", 10) else {9})


@pytest.mark.parametrize(("kind", "shape"), [("steps", "hvh"), ("cumulative", "hv")])
def test_a_share_of_images_rises_at_their_values(kind, shape):
    """Plotly's hv keeps a value until the next x; hvh changes midway."""
    assert figure(Series([1, 2], [50, 100], "a", kind=kind)).data[0].line.shape == shape


def test_bars_of_networks_have_their_markers_as_text():
    shapes = ("circle", "square", "diamond", "triangle-up")
    look = {name: Look("#333333", name) for name in shapes}
    marks = [Series(["x", "y"], [1, 2], name, name, kind="bars") for name in shapes]
    chart = drawn(Plot("p", "Title", "Finding", marks), look, id="p").figure
    assert [each.text for each in chart.data] == [(sign,) * 2 for sign in "●■◆▲"]
    assert [each.name for each in chart.data] == [
        f"{s} {n}" for s, n in zip("●■◆▲", shapes, strict=True)
    ]
    (neutral,) = figure(Series(["x"], [1], "MAC", kind="bars")).data
    assert (neutral.name, neutral.text) == ("MAC", None)

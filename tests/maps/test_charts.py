"""Charts of a toy map: cells as measured, the outline, and the fronts."""

from dataclasses import replace

import numpy as np
import pytest

from spikeguard.maps.charts import Sheet, _along, heat_charts
from spikeguard.maps.classes import CLASSES
from spikeguard.maps.front_charts import front_charts
from spikeguard.maps.printed import Printed
from tests.toys.maps import numbers, toy_cell

PRINTED = "<b>Table &lt;I&gt;</b><br>tau=2<br>99 %<br>Note: 1 &lt; 2"
TAUS, V = [2.0, 3.0, 4.0], [0.5, 1.0, 1.5, 2.5]
PLACES = [(x, y) for x in range(3) for y in range(4) if (x, y) != (1, 1)]
CELLS = {(x, y): toy_cell(V[y], TAUS[x]) for x, y in PLACES}


@pytest.fixture(scope="module")
def sheet():
    return Sheet(
        TAUS,
        V,
        ("tau", "v_th"),
        CELLS,
        {place: f"cell {place}" for place in PLACES},
        {place: f"{place}.html" for place in PLACES},
        [Printed(2.5, 0.5, "Table <I>, tau=2: 99 %", ("1 < 2",))],
        {(x, y) for x in range(3) for y in range(3)},
    )


@pytest.fixture(scope="module")
def heats(sheet):
    return {chart.id: chart.figure for chart in heat_charts(sheet)}


def test_there_is_a_chart_for_each_number_that_is_known(heats):
    assert list(heats) == [
        *("class", "accuracy", "robust-0", "spikes", "synops", "near", "zero-0")
    ]  # the toy's cells have no eta here


def test_cells_are_as_measured_and_never_interpolated(heats):
    for id, at, scale in (("accuracy", 1, 100), ("robust-0", 3, 100)):
        (heat,) = (trace for trace in heats[id].data if trace.type == "heatmap")
        for x, y in ((x, y) for x in range(3) for y in range(4)):
            value = heat.z[y][x]
            if (x, y) in CELLS:
                assert value == pytest.approx(scale * numbers(V[y], TAUS[x])[at])
                assert (heat.text[y][x], heat.customdata[y][x]) == (
                    f"cell {(x, y)}",
                    f"{(x, y)}.html",
                )
            else:
                assert np.isnan(value) and heat.text[y][x] == ""
        assert not heat.zsmooth


def test_classes_have_a_colour_each(heats):
    (heat,) = (trace for trace in heats["class"].data if trace.type == "heatmap")
    kinds = list(CLASSES)
    assert heat.z[0][0] == kinds.index("working") and heat.z[3][0] == kinds.index("silent")
    assert (heat.zmin, heat.zmax) == (-0.5, len(kinds) - 0.5)
    assert list(heat.colorbar.ticktext) == kinds
    assert len({colour for _, colour in heat.colorscale}) == len(kinds)


def test_operations_have_a_logarithmic_colour(heats):
    (heat,) = (trace for trace in heats["synops"].data if trace.type == "heatmap")
    assert heat.z[0][0] == pytest.approx(np.log10(numbers(0.5, 2.0)[2]))
    assert heat.colorbar.ticktext[0] == "1"


def test_equal_numbers_have_one_tick_on_their_colour_bar(heats):
    (heat,) = (trace for trace in heats["zero-0"].data if trace.type == "heatmap")
    assert list(heat.colorbar.ticktext) == ["0"]


def test_an_axis_has_its_values_with_four_digits(sheet):
    chart = heat_charts(replace(sheet, x=[1.001, 2.0, 3.0]))[0]
    assert list(chart.figure.layout.xaxis.ticktext) == ["1.001", "2", "3"]


def test_the_outline_is_the_edge_of_the_region(heats):
    """Three by three cells: a square of side 3 in 12 edges of one cell each."""
    (line,) = (
        trace
        for trace in heats["accuracy"].data
        if trace.type == "scatter" and trace.mode == "lines"
    )
    edges = {
        frozenset(zip(line.x[at : at + 2], line.y[at : at + 2], strict=True))
        for at in range(0, len(line.x), 3)
    }
    assert len(edges) == 12
    for edge in edges:
        (x0, y0), (x1, y1) = sorted(edge)
        assert (x0, x1) in ((-0.5, -0.5), (2.5, 2.5)) or (y0, y1) in ((-0.5, -0.5), (2.5, 2.5))
        assert abs(x1 - x0) + abs(y1 - y0) == 1


def test_printed_points_lie_between_the_cells_and_are_escaped(heats):
    (mark,) = (
        trace
        for trace in heats["accuracy"].data
        if trace.type == "scatter" and trace.mode == "markers"
    )
    assert (mark.x[0], mark.y[0], mark.text[0]) == (0.5, 0.0, PRINTED)


def test_fronts_show_the_knee_and_all_cells(sheet):
    charts = front_charts(sheet)
    assert charts[0].title == "Front: accuracy, operations"
    assert len(charts) == 4 and charts[-1].figure.data[0].type == "scatter3d"
    others, front, knee = charts[0].figure.data
    assert len(others.x) + len(front.x) == len(CELLS) and len(knee.x) == 1
    assert set(knee.text) <= set(front.text)
    assert charts[0].figure.layout.yaxis.type == "log"
    best = max(range(len(front.x)), key=lambda place: front.x[place])
    assert front.text[best] == "cell (0, 0)" and front.customdata[best] == "(0, 0).html"


def test_a_printed_point_lies_between_the_cells_of_a_falling_axis_too():
    values = [1.5, 1.0, 0.5]
    assert [_along(values, value) for value in (1.5, 1.0, 0.75, 0.5)] == [0.0, 1.0, 1.5, 2.0]

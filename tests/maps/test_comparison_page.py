"""The page of a comparison: differences as measured, dots where an interval excludes no change."""

import json

import numpy as np
import pytest

from spikeguard.maps import comparison_page as pages
from spikeguard.maps.comparison import compare
from spikeguard.maps.comparison_page import comparison_page
from spikeguard.maps.operational_map import draw_map
from spikeguard.maps.plan import REPORT
from tests.toys.maps import V_TH, toy_map

HOSTILE = "</script><script>alert(1)</script>"


def changed(cell):
    """Return a cell of the second map: at v_th = 2 less accurate, half the operations, silent."""
    if cell["point"][V_TH] != 2.0:
        return cell
    score = {**cell["accuracy"], "accuracy": cell["accuracy"]["accuracy"] - 0.08}
    operations = {k: v / 2 for k, v in cell["operations"].items()}
    return {**cell, "class": "saturated", "accuracy": score, "operations": operations}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Return the folder of a map of 3 x 3 cells, its content, and that of a changed one."""
    folder = tmp_path_factory.mktemp("map") / "m"
    draw_map(toy_map(folder, nx=3, ny=3))
    card = json.loads((folder / "map.json").read_text())
    return folder, card, {**card, "cells": [changed(c) for c in card["cells"]][:-1]}


@pytest.fixture(scope="module")
def charts(drawn):
    folder, first, second = drawn
    found, seen = compare(first, second), []
    original = pages.figures_of
    pages.figures_of = lambda heats: seen.extend(heats) or original(heats)
    try:
        text = comparison_page(first, second, found, (folder, folder), folder / "c.html")
    finally:
        pages.figures_of = original
    return text, {chart.id: chart for chart in seen}


def parts(chart):
    """Return the heat map and the places of the dots."""
    (heat,) = (trace for trace in chart.figure.data if trace.type == "heatmap")
    scatters = [trace for trace in chart.figure.data if trace.type == "scatter"]
    dots = [trace for trace in scatters if trace.mode == "markers"]
    return heat, {place for dot in dots for place in zip(dot.x, dot.y, strict=True)}


ROW = {(0, 1), (1, 1), (2, 1)}


def test_differences_are_as_measured_and_the_changed_cells_have_a_dot(charts):
    text, by_id = charts
    assert list(by_id) == ["class", "accuracy-0", "accuracy-1", "spikes", "synops"]
    for id, value, dots in (
        ("accuracy-0", -8.0, ROW),
        ("accuracy-1", 0.0, set()),
        ("synops", np.log10(0.5), set()),  # the toy's operations have no interval
        ("spikes", 0.0, set()),
    ):
        heat, marked = parts(by_id[id])
        expected = np.zeros((3, 3))
        expected[1] = value
        expected[2, 2] = np.nan  # not in the second map
        np.testing.assert_allclose(np.asarray(heat.z, float), expected, atol=1e-6)
        assert heat.zmin == -heat.zmax and not heat.zsmooth and marked == dots
    assert parts(by_id["class"])[1] == ROW
    assert "8 cells of both maps · 1 only in" in text
    assert "3 of 8 cells" in by_id["accuracy-0"].summary


def test_the_interval_is_under_the_pointer_and_in_the_table(charts):
    text, by_id = charts
    heat, _ = parts(by_id["accuracy-0"])
    assert "class: <b>silent &gt; saturated</b>" in heat.text[1][0]
    assert "accuracy: <b>-8.0 points [-" in heat.text[1][0]
    assert "synaptic operations of an image: <b>x 0.5</b>" in heat.text[1][0]
    assert text.count('<th scope="row" class="first">') == 8
    assert list(by_id["synops"].figure.data[0].colorbar.ticktext)[::2] == ["x 0.5", "x 1", "x 2"]


def test_a_cell_is_linked_to_its_report_in_the_second_map(drawn, tmp_path):
    folder, first, second = drawn
    (folder / "trials" / "one").mkdir()
    (folder / "trials" / "one" / REPORT).touch()
    cells = [{**cell, "runs": ["trials/one/seed0"]} for cell in second["cells"]]
    found = compare(first, second)
    linked = {**second, "cells": cells}
    for page, link in (
        (folder / "c.html", f"trials/one/{REPORT}"),
        (folder / "sub" / "c.html", f"../trials/one/{REPORT}"),
    ):
        text = comparison_page(first, linked, found, (folder, folder), page)
        assert text.count(f'<a href="{link}">') == 8


def test_text_of_a_folder_is_no_markup(drawn, tmp_path):
    _, first, second = drawn
    hostile = tmp_path / HOSTILE.replace("/", "|")
    text = comparison_page(
        first, second, compare(first, second), (hostile, hostile), tmp_path / "c.html"
    )
    assert "<|script><script>" not in text

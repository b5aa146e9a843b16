"""The page of a map in a real browser: charts are drawn, and a click opens a report."""

import json

import pytest

from spikeguard.maps.operational_map import draw_map
from spikeguard.maps.page import map_page
from tests.toys.browsers import IN_BROWSER, SCROLL_THROUGH
from tests.toys.maps import toy_map

pytestmark = IN_BROWSER


@pytest.fixture
def page(tmp_path):
    folder = tmp_path / "m"
    draw_map(toy_map(folder, nx=3, ny=3))
    card = json.loads((folder / "map.json").read_text())
    for cell in card["cells"]:
        cell["runs"] = ["trials/one/seed0"]
    (folder / "trials" / "one").mkdir()
    (folder / "trials" / "one" / "report.html").write_text("<title>One</title>")
    (folder / "map.html").write_text(map_page(card, folder))
    return folder / "map.html"


def test_charts_are_drawn_and_a_click_on_a_cell_opens_its_report(page, chromium):
    tab, errors = chromium.new_page(viewport={"width": 1280, "height": 900}), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("request", lambda it: errors.append(it.url) if it.url.startswith("http") else None)
    tab.goto(page.as_uri())
    tab.evaluate(SCROLL_THROUGH)
    assert errors == [] and tab.locator(".chart").count() == 13
    tab.locator("#class").scroll_into_view_if_needed()
    box = tab.locator("#class .nsewdrag").first.bounding_box()
    at = (box["x"] + box["width"] / 6, box["y"] + box["height"] * 5 / 6)
    tab.mouse.move(*at)
    tab.wait_for_selector("#class .hoverlayer .hovertext")
    shown = tab.locator("#class .hoverlayer").text_content()
    assert "v_th: 0.25" in shown and "accuracy: 87.5 % [86.5, 88.5]" in shown
    with tab.expect_navigation():
        tab.mouse.click(*at)
    assert tab.title() == "One"

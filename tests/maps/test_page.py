"""The page of a map: every cell, links to reports, and no markup from recipes."""

import json

import pytest

from spikeguard.maps.comparison import compare
from spikeguard.maps.comparison_page import comparison_page
from spikeguard.maps.operational_map import draw_map
from spikeguard.maps.page import map_page, with_point
from spikeguard.maps.plan import REPORT
from tests.toys.maps import toy_map

HOSTILE = "</script><script>alert(1)</script><img src=x>"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("map") / "m"
    draw_map(toy_map(folder, nx=3, ny=3, diverged=(0.25,), broken=(3.75,)))
    return folder, json.loads((folder / "map.json").read_text())


def test_the_page_is_written_beside_the_map_and_shows_every_cell(drawn):
    folder, card = drawn
    text = (folder / "map.html").read_text()
    assert text == map_page(card, folder)
    assert "9 of 9 cells measured" in text and "2 optimiser steps a training" in text
    assert text.count('<th scope="row" class="first">') == 9
    assert "TrainingDiverged: nan" in text and "ValueError: no network" in text
    assert "<td>silent</td>" in text and text.count("<td>failed</td>") == 3


def test_a_cell_is_linked_to_its_report_if_it_has_one(drawn):
    folder, card = drawn
    assert "<a href=" not in map_page(card, folder)
    cell = next(cell for cell in card["cells"] if cell["class"] == "silent")
    changed = {**card, "cells": [{**c, "runs": ["trials/a b/seed0"]} if c is cell else c
                                 for c in card["cells"]]}  # fmt: skip
    assert "<a href=" not in map_page(changed, folder)
    (folder / "trials" / "a b").mkdir()
    (folder / "trials" / "a b" / REPORT).touch()
    text = map_page(changed, folder)
    assert text.count(f'<a href="trials/a%20b/{REPORT}">') == 1
    assert text.count("a%20b") > 1  # and under the charts' cells


def test_text_of_a_recipe_or_an_error_is_no_markup(drawn):
    folder, card = drawn
    recipe = {**card["map"]["recipe"], "title": HOSTILE}
    cells = [{**c, "error": HOSTILE} if "error" in c else c for c in card["cells"]]
    text = map_page({**card, "map": {**card["map"], "recipe": recipe}, "cells": cells}, folder)
    assert HOSTILE not in text and "<img src=x>" not in text


def test_printed_points_are_listed_with_their_notes(drawn):
    """The toy emits at most 60 spikes of an image, 6e5 on 10,000 images."""
    folder, card = drawn
    assert "Printed points" not in map_page(card, folder)
    published = ["operational-space/II (most accurate)/mnist/cnn/tau=1.88 v_th=1.3389"]
    recipe = {**card["map"]["recipe"], "published": published}
    axes = {name: {**card["map"][name], "values": [1.0, 2.0, 4.0]} for name in ("x", "y")}
    cells = [{**c, "point": dict.fromkeys(c["point"], 2.0)} for c in card["cells"]]
    text = map_page(
        {**card, "map": {**card["map"], "recipe": recipe, **axes}, "cells": cells}, folder
    )
    assert (
        "<li>operational-space, Table II, tau=1.88 v_th=1.3389: 99.1 %, total spikes 7.10e+08; "
        "the text prints 99.36; the network of this map emits at most 6e+05 spikes" in text
    )


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (("model.width", "model.neuron.v_th"), ("width", "v_th")),
        (("model.width", "model.neuron.surrogate.width"), ("model.width", "surrogate.width")),
        (("model.width", "objective.0.steps"), ("model.width", "0.steps")),
    ],
)
def test_both_values_of_a_cell_are_shown_whatever_the_last_parts_of_their_fields(fields, names):
    """The point lists y first, as a stored record may."""
    x, y = fields
    shown, facts = with_point(fields, {(0, 0): {y: 0.5, x: 4}}, {(0, 0): {"steps": "20"}})
    assert shown == names
    assert facts[0, 0] == {names[0]: "4", names[1]: "0.5", "steps": "20"}


def test_the_pages_of_fields_with_one_last_part_have_a_column_for_each(drawn):
    folder, card = drawn
    found = {"model.neuron.tau": "model.neuron.v.v_th"}
    text = json.dumps(card)
    for was, becomes in found.items():
        text = text.replace(was, becomes)
    renamed = json.loads(text)
    both = comparison_page(
        renamed, renamed, compare(renamed, renamed), (folder, folder), folder / "c.html"
    )
    for page in (map_page(renamed, folder), both):
        head = page[page.index("<thead>") : page.index("</thead>")]
        assert "neuron.v_th" in head and "v.v_th" in head

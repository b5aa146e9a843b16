"""The page of a map: every cell, links to reports, and no markup from recipes."""

import json

import pytest

from spikeguard.maps.operational_map import draw_map
from spikeguard.maps.page import map_page
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

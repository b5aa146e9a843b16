"""The difference of two maps: signs, intervals, classes and what has no pair."""

import json

import pytest

from spikeguard.config.errors import ConfigError
from spikeguard.maps.comparison import compare, read_map
from spikeguard.maps.operational_map import draw_map
from tests.toys.maps import TAU, V_TH, toy_cell, toy_map


def card(*cells, fields=(TAU, V_TH)):
    axes = {axis: {"field": field} for axis, field in zip("xy", fields, strict=True)}
    return {"map": axes, "cells": list(cells)}


def scored(accuracy, n=100, *, kind="working", acs=10.0):
    """Return the toy's cell at tau 2, v_th 1 with another accuracy."""
    cell = toy_cell(1.0, 2.0)
    operations = {**cell["operations"], "effective_acs": acs, "effective_macs": 0.0}
    score = {"accuracy": accuracy, "low": 0.0, "high": 1.0, "n": n}
    return {**cell, "class": kind, "accuracy": score, "operations": operations}


def test_a_difference_has_newcombes_interval():
    """56/70 less 48/80: Newcombe 1998, Table II, method 10: 0.2 [0.0524, 0.3339]."""
    first, second = card(scored(48 / 80, 80)), card(scored(56 / 70, 70))
    (found,) = compare(first, second).cells
    assert found.accuracies["accuracy"] == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    (other,) = compare(second, first).cells
    assert other.accuracies["accuracy"] == pytest.approx((-0.2, -0.3339, -0.0524), abs=5e-5)


def test_classes_operations_and_attacks_of_both_maps():
    (found,) = compare(
        card(scored(0.9, acs=40.0)), card(scored(0.1, kind="silent", acs=10.0))
    ).cells
    assert found.classes == ("working", "silent") and found.synops == 0.25
    assert found.point == {TAU: 2.0, V_TH: 1.0}
    assert found.accuracies["fgsm@0.1"][0] == 0.0
    (found,) = compare(card({**scored(0.9), "robust": {}}), card(scored(0.9))).cells
    assert list(found.accuracies) == ["accuracy"]


def test_cells_without_a_pair_are_counted_and_diverged_ones_have_no_numbers():
    error = {"point": {TAU: 2.0, V_TH: 1.0}, "class": "not converged", "error": "nan"}
    found = compare(card(scored(0.9), toy_cell(1.5, 2.0)), card(error))
    assert found.only == (1, 0) and len(found.cells) == 1
    assert found.cells[0].classes == ("working", "not converged")
    assert found.cells[0].accuracies == {} and found.cells[0].synops is None


def test_axes_may_be_exchanged_and_numbers_whole():
    cell = scored(0.9)
    other = {**cell, "point": {V_TH: 1, TAU: 2}}
    assert len(compare(card(cell), card(other, fields=(V_TH, TAU))).cells) == 1


def test_maps_that_cannot_be_compared_are_rejected():
    with pytest.raises(ConfigError, match="the maps have other fields"):
        compare(card(scored(0.9)), card(scored(0.9), fields=(TAU, "model.T")))
    with pytest.raises(ConfigError, match="no cell in common"):
        compare(card(scored(0.9)), card(toy_cell(1.5, 2.0)))


def test_a_map_is_read_from_its_folder(tmp_path):
    draw_map(toy_map(tmp_path / "m", nx=2, ny=2))
    found = read_map(tmp_path / "m")
    assert compare(found, found).only == (0, 0)
    with pytest.raises(ConfigError, match=r"no map, it holds no map\.json"):
        read_map(tmp_path)
    file = tmp_path / "m" / "map.json"
    changed = {**json.loads(file.read_text()), "size": 5}
    for text in (json.dumps(changed), "{", "[]"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"map\.json: damaged"):
            read_map(tmp_path / "m")

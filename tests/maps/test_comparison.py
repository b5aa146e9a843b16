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


def with_spikes(*seeds):
    """Return a cell whose seeds have these spikes of an image: mean, low, high."""
    ends = ("mean", "low", "high")
    cards = [{"spikes": {"an_image": dict(zip(ends, each, strict=True))}} for each in seeds]
    middle = sum(mean for mean, _, _ in seeds) / len(seeds)
    cell = scored(0.9)
    cell["spikes"] = {**cell["spikes"], "an_image": middle}
    return {**cell, "seeds": {str(seed): card for seed, card in enumerate(cards)}}


def spikes_ratio(first, second):
    (found,) = compare(card(first), card(second)).cells
    return found.ratios["spikes"], "spikes" in found.changed


def test_a_ratio_to_a_number_without_spread_has_the_interval_of_the_other():
    exact, other = with_spikes((50, 50, 50)), with_spikes((100, 80, 120))
    assert spikes_ratio(exact, other) == (pytest.approx((2.0, 1.6, 2.4)), True)
    assert spikes_ratio(other, exact) == (pytest.approx((0.5, 50 / 120, 50 / 80)), True)


def test_a_ratio_of_equal_spreads_is_wider_by_the_root_of_two():
    """Both from 1/e to e times their value: the ratio from exp(-sqrt 2) to exp(sqrt 2) times."""
    e = 2.718281828459045
    cell = with_spikes((10, 10 / e, 10 * e))
    wide = e**2**0.5
    assert spikes_ratio(cell, cell) == (pytest.approx((1.0, 1 / wide, wide)), False)


def test_an_end_is_the_mean_over_the_seeds():
    cell = with_spikes((90, 70, 110), (110, 90, 130))
    assert spikes_ratio(with_spikes((50, 50, 50)), cell)[0] == pytest.approx((2.0, 1.6, 2.4))


def test_a_ratio_without_spikes_or_intervals_has_none():
    assert spikes_ratio(scored(0.9), scored(0.9)) == ((1.0, None, None), False)
    silent = with_spikes((0, 0, 0))
    (found,) = compare(card(silent), card(silent)).cells
    assert "spikes" not in found.ratios


@pytest.mark.parametrize(("right", "changed"), [(0.5, False), (0.62, False), (0.64, True)])
def test_a_change_is_an_interval_that_excludes_none(right, changed):
    """Of 100 images each, 50 against 62 has Newcombe's interval from -0.018, against 64 above 0."""
    (found,) = compare(card(scored(0.5)), card(scored(right))).cells
    assert ("accuracy" in found.changed) == (found.accuracies["accuracy"][1] > 0) == changed
    (found,) = compare(card(scored(right)), card(scored(0.5, kind="silent"))).cells
    assert ("accuracy" in found.changed) == changed and "class" in found.changed


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

"""Printed points of the operational-space paper on maps of its own recipes."""

import pytest

from spikeguard.maps.printed import printed_points

MLP = ["operational-space/II (most accurate)/mnist/mlp/tau=1.001 v_th=0.01"]
TAU = {"field": "model.neuron.tau", "values": [1.001, 3.0, 5.0]}
V_TH = {"field": "model.neuron.v_th", "values": [0.01, 1.5, 3.0]}


def points(x, y, published):
    found = printed_points({"recipe": {"published": published}, "x": x, "y": y})
    return [(point.x, point.y, point.text) for point in found]


def test_both_tables_of_the_map_s_network_and_data_are_marked():
    first, second = points(TAU, V_TH, MLP)
    assert first[:2] == (1.001, 1.33) and second[:2] == (1.001, 0.01)
    assert first[2] == (
        "operational-space, Table I, tau=1.001 v_th=1.33: 99.01 %, total spikes 2.54e+08"
    )


def test_axes_can_be_exchanged():
    assert [point[:2] for point in points(V_TH, TAU, MLP)] == [(1.33, 1.001), (0.01, 1.001)]


@pytest.mark.parametrize(
    ("x", "published"),
    [
        (TAU, []),
        ({"field": "model.neuron.sigma", "values": [0.1, 1.0]}, MLP),
        ({**TAU, "values": [2.0, 3.0]}, MLP),
    ],
)
def test_no_point_of_another_recipe_field_or_range_is_marked(x, published):
    assert points(x, V_TH, published) == []

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
        "operational-space, Table I, tau=1.001 v_th=1.33: 99.01 %, total spikes 2.54e+08, "
        "efficiency 7.74"
    )
    assert second[2].endswith("97.02 %, total spikes 1.29e+07")


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


def test_known_errors_are_notes():
    first, second = printed_points({"recipe": {"published": MLP}, "x": TAU, "y": V_TH})
    assert first.notes == ("the MNIST rows of Table I look swapped",)
    assert second.notes == ("the text prints 97.57",)


@pytest.mark.parametrize(("neurons", "noted"), [(394, True), (618, False)])
def test_a_printed_number_of_spikes_that_the_network_cannot_emit_has_a_note(neurons, noted):
    """394 neurons, T = 10, 10,000 images: at most 3.94e7 spikes; Table II prints 6.18e7."""
    published = ["operational-space/II (most accurate)/cifar10/mlp/tau=5.0 v_th=1.6711"]
    card = {"recipe": {"published": published}, "x": TAU, "y": V_TH}
    (found,) = printed_points(card, at_most=10.0 * neurons)
    assert "total spikes 6.18e+07" in found.text and found.notes[0] == "the text prints 53.53"
    assert [note.startswith("the network of this map emits at most 3.94e+07 spikes on 10,000")
            for note in found.notes[1:]] == [True] * noted  # fmt: skip
    assert len(printed_points(card)[0].notes) == 1

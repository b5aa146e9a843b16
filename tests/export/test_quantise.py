"""Quantised weights and thresholds, worked by hand."""

import pytest
import torch

from spikeguard.export.folding import folded
from spikeguard.export.quantise import quantised, quantised_weights
from spikeguard.export.refusals import ExportError
from tests.toys.exported import cnn

WEIGHT = torch.tensor([[3.0, -1.6, 0.4], [0.3, 0.16, -0.04]], dtype=torch.float64)


def test_three_bits_by_hand():
    """Three bits have the levels -3 to 3: steps of 1, and of 1 and 0.1 for the two channels."""
    found = quantised_weights(WEIGHT, 3, "tensor")
    assert found.tolist() == [[3.0, -2.0, 0.0], [0.0, 0.0, 0.0]]
    found = quantised_weights(WEIGHT, 3, "channel")
    torch.testing.assert_close(found.tolist(), [[3.0, -2.0, 0.0], [0.3, 0.2, 0.0]])


def test_ties_go_to_even_and_zeros_stay():
    assert quantised_weights(torch.tensor([[3.0, 0.5, 1.5, 2.5]]), 3, "tensor").tolist() == [
        [3.0, 0.0, 2.0, 2.0]
    ]
    assert quantised_weights(torch.zeros(2, 2), 4, "channel").abs().sum() == 0


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_levels_and_error_of_every_layer(bits, per):
    """At most 2^b - 1 values in a tensor or channel, each within half a step."""
    before = folded(cnn())
    after = quantised(before, bits=bits, per=per, threshold_grid=None)
    for old, new in zip(before.weights(), after.weights(), strict=True):
        parts = [(old.weight, new.weight)]
        if per == "channel":
            parts = list(zip(old.weight, new.weight, strict=True))
        for a, b in parts:
            step = a.abs().max() / (2 ** (bits - 1) - 1)
            assert len(b.unique()) <= 2**bits - 1
            assert (a - b).abs().max() <= step / 2 * (1 + 1e-9)
        assert torch.equal(old.bias, new.bias)
    assert after.facts["weights"] == f"{bits} bits per {per}"
    assert "weights" not in before.facts


def test_thresholds_on_a_grid():
    """1 / 0.3 is 3.3, so three steps: 0.9; a grid above the threshold leaves one step."""
    graph = folded(cnn())
    for grid, wanted in ((0.3, 0.9), (4.0, 4.0), (0.25, 1.0)):
        found = quantised(graph, bits=None, per="tensor", threshold_grid=grid)
        thresholds = [neuron.v_th for neuron in found.neurons()]
        assert thresholds == pytest.approx([wanted] * 4)
    assert {neuron.v_th for neuron in graph.neurons()} == {1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1, "threshold_grid": None}, "--weights: bits of a weight, 2 to 8, got 1"),
        ({"bits": 16, "threshold_grid": None}, "2 to 8, got 16"),
        ({"bits": None, "threshold_grid": 0.0}, "--threshold-grid: a step > 0, got 0"),
        ({"bits": None, "threshold_grid": float("inf")}, "got inf"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(ExportError, match=message):
        quantised(folded(cnn()), per="tensor", **options)

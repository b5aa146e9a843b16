"""The verification passes the graph of a network, and fires on every planted fault."""

import math

import numpy as np
import pytest
import torch

from spikeguard.export.folding import folded
from spikeguard.export.graph import Pool, Weights
from spikeguard.export.nir_file import threshold_above, threshold_below, to_nir
from spikeguard.export.refusals import ExportError
from spikeguard.export.verification import compare
from spikeguard.neurons import LIF
from tests.toys.exported import agreement, cnn, images, linear, single

pytest.importorskip("nir", reason="nir is not installed: pip install 'spikeguard[nir]'")


def compared(model, graph, x=None):
    layers = {node.name: node.layer for node in graph.neurons()}
    return compare(to_nir(graph), model, images() if x is None else x, layers)


def test_a_network_and_its_graph():
    found = agreement(cnn(), images())
    assert (found.differ, found.same, found.n) == (0, 6, 6)
    assert found.spikes == 6 * 4 * (4 * 64 + 8 * 16 + 16 * 4 + 12)
    assert "0 of 11,040 spikes differ on 6 inputs; logits" in str(found)


def weaken(graph):
    graph.nodes["features_4"].weight[0] *= 0.9


def drop_a_bias(graph):
    graph.nodes["features_0"].bias[:] = 0


def forget_the_gain(graph):
    graph.nodes["classifier_1"].scale(torch.full((12,), 0.5, dtype=torch.float64))


def leak_more(graph):
    graph.neurons()[1].leak = graph.neurons()[1].leak * 0.9


def raise_a_threshold(graph):
    graph.neurons()[-1].v_th = 1.05


def shift_the_windows(graph):
    pool = next(node for node in graph.nodes.values() if isinstance(node, Pool))
    pool.padding = (1, 1)
    pool.kernel = (4, 4)


def change_the_readout(graph):
    [node for node in graph.nodes.values() if isinstance(node, Weights)][-1].bias[0] += 0.01


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (weaken, "spikes of features_6 differ"),
        (drop_a_bias, "spikes of features_2 differ"),
        (forget_the_gain, "spikes of classifier_2 differ"),
        (leak_more, "spikes of features_6 differ"),
        (raise_a_threshold, "spikes of classifier_2 differ"),
        (shift_the_windows, "spikes of features_6 differ"),
        (change_the_readout, "a logit differs by 0.01"),
    ],
)
def test_a_planted_fault_is_found_in_its_layer(fault, where):
    model = cnn()
    graph = folded(model)
    fault(graph)
    with pytest.raises(ExportError, match=where):
        compared(model, graph)


def test_a_tie_fires_in_the_graph_as_in_the_network():
    """v = 1 at the first step. With v_threshold = 1 the graph, which fires above it, does not."""
    model = single(linear([[1.0]]), LIF(0.5), T=2, in_shape=(1,))
    x = torch.ones(1, 1)
    assert model(x).item() == 1
    assert agreement(model, x).differ == 0
    planted = to_nir(folded(model))
    planted.nodes["net_1"].v_threshold[:] = 1.0
    with pytest.raises(ExportError, match="1 of 2 spikes of net_1 differ at equal potentials"):
        compare(planted, model, x, {"net_1": "net.1"})


def test_what_rounding_decides_is_counted_and_not_rejected():
    model = single(linear([[1.0]]), LIF(0.5), T=1, in_shape=(1,))
    graph = folded(model)
    graph.nodes["net_0"].weight *= 1 - 1e-6
    near, far = torch.ones(1, 1), torch.full((1, 1), 0.5)
    found = compared(model, graph, near)
    assert (found.differ, found.spikes) == (1, 1)
    assert "decided by rounding" in str(found)
    assert compared(model, graph, far).differ == 0
    graph.nodes["net_0"].weight *= 1 - 1e-3
    with pytest.raises(ExportError, match="1 of 1 spikes of net_1 differ"):
        compared(model, graph, near)


@pytest.mark.parametrize("v_th", [1.0, 0.3, 1e-3, 7.5])
def test_the_threshold_below_separates_the_same_numbers(v_th):
    """v >= v_th and v > below agree on the float32 numbers around v_th; the way back is exact."""
    threshold, below = np.float32(v_th), np.float32(threshold_below(v_th))
    v = [threshold]
    for _ in range(3):
        v = [np.nextafter(v[0], np.float32(0)), *v, np.nextafter(v[-1], np.float32(math.inf))]
    assert [a >= threshold for a in v] == [a > below for a in v]
    assert threshold_above(threshold_below(v_th)) == float(threshold)

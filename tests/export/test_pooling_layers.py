"""Average pooling as a convolution: the same means."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from spikeguard.export.folding import folded
from spikeguard.export.interpreter import replay
from spikeguard.export.nir_file import facts_of, to_nir
from spikeguard.export.pooling_layers import without_pooling
from tests.toys.exported import cnn, images

nir = pytest.importorskip("nir", reason="nir is not installed: pip install 'spikeguard[nir]'")


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_the_means_of_a_pooling(kernel, stride, padding):
    sizes = (np.array([each, each]) for each in (kernel, stride, padding))
    nodes = {"input": nir.Input({"input": np.array([3, 8, 8])}), "pool": nir.AvgPool2d(*sizes)}
    nodes["output"] = nir.Output({"output": np.array([3, 4, 4])})
    graph = without_pooling(nir.NIRGraph(nodes, [("input", "pool"), ("pool", "output")]))
    x = images(2, channels=3)
    found = replay(graph, x[None]).output[0]
    wanted = functional.avg_pool2d(x, kernel, stride, padding)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_a_network_fires_alike_without_pooling_nodes():
    graph = to_nir(folded(cnn()))
    found = without_pooling(graph)
    assert not any(isinstance(node, nir.AvgPool2d) for node in found.nodes.values())
    assert any(isinstance(node, nir.AvgPool2d) for node in graph.nodes.values())
    assert facts_of(found) == facts_of(graph)
    x = images().expand(4, -1, -1, -1, -1)
    before, after = replay(graph, x), replay(found, x)
    for name, spikes in before.spikes.items():
        assert torch.equal(spikes, after.spikes[name])

"""The interpreter of NIR graphs, against loops over plain numbers."""

import numpy as np
import pytest
import torch

from spikeguard.export.interpreter import order, replay
from spikeguard.export.refusals import ExportError
from spikeguard.rng import stream

nir = pytest.importorskip("nir", reason="nir is not installed: pip install 'spikeguard[nir]'")


def graph_of(*nodes, shape):
    return nir.NIRGraph.from_list(
        nir.Input({"input": np.array(shape)}), *nodes, nir.Output({"output": np.array(shape)})
    )


def lif(n, leak=0.5, v_threshold=1.0, r=1.0):
    full = np.full(n, 1.0)
    tau = 1e-4 / (1 - leak)
    return nir.LIF(tau=tau * full, r=r * full, v_leak=0 * full, v_threshold=v_threshold * full)


def fired(currents, leak):
    """Return the spikes of v = leak v + I, hard reset to 0, for each neuron."""
    found = np.zeros(currents.shape)
    for neuron in range(currents.shape[1]):
        v = 0.0
        for t, current in enumerate(currents[:, neuron].tolist()):
            v = leak * v + current
            if v > 1:
                found[t, neuron], v = 1, 0.0
    return found


@pytest.mark.parametrize(("leak", "number"), [(0.5, 38), (0.9, 57)])
def test_forty_steps_of_six_neurons(leak, number):
    """Both forms of the gain: r = 1 / (1 - leak), and r = 1 with the gain in the input."""
    drawn = torch.randn(40, 6, generator=stream(21, "currents"), dtype=torch.float64)
    currents = 0.5 * drawn + 0.3
    wanted = torch.tensor(fired(currents.numpy(), leak), dtype=torch.float32)
    assert wanted.sum() == number
    x, gain = currents.float()[:, None], 1 / (1 - leak)
    form_a = replay(graph_of(lif(6, leak, r=gain), shape=(6,)), x)
    form_b = replay(graph_of(lif(6, leak), shape=(6,)), x * gain)
    for found in (form_a, form_b):
        assert torch.equal(found.output[:, 0], wanted)
    assert not torch.equal(replay(graph_of(lif(6, leak), shape=(6,)), x).output[:, 0], wanted)


def test_a_tie_does_not_fire():
    """NIR: v > v_threshold."""
    x = torch.tensor([2.0, 2.0]).view(2, 1, 1)
    found = replay(graph_of(lif(1), shape=(1,)), x)
    assert (found.spikes["lif"].flatten().tolist(), found.v["lif"].flatten().tolist()) == (
        [0, 1],
        [1.0, 1.5],
    )


def test_an_integrator_without_leak_and_its_reset():
    """0.6, 1.2 fires and resets to 0.25, 0.85, 1.45 fires."""
    node = nir.IF(r=np.full(1, 1e4), v_threshold=np.ones(1), v_reset=np.full(1, 0.25))
    found = replay(graph_of(node, shape=(1,)), torch.full((4, 1, 1), 0.6))
    assert found.output.flatten().tolist() == [0, 1, 0, 1]


def test_sums_and_stateless_nodes():
    """Both branches of a diamond arrive; 2 x + 3 x + 1."""
    nodes = {
        "input": nir.Input({"input": np.array([1])}),
        "a": nir.Linear(weight=np.array([[2.0]])),
        "b": nir.Affine(weight=np.array([[3.0]]), bias=np.array([1.0])),
        "c": nir.Scale(scale=np.array([1.0])),
        "output": nir.Output({"output": np.array([1])}),
    }
    edges = [("input", "a"), ("input", "b"), ("a", "c"), ("b", "c"), ("c", "output")]
    found = replay(nir.NIRGraph(nodes, edges), torch.full((1, 1, 1), 10.0))
    assert found.output.item() == 51


def test_given_spikes_replace_the_own_ones():
    graph = nir.NIRGraph.from_list(lif(1), nir.Affine(weight=np.ones((1, 1)), bias=np.zeros(1)))
    found = replay(graph, torch.zeros(2, 1, 1), given={"lif": torch.ones(2, 1, 1)})
    assert found.output.flatten().tolist() == [1, 1]
    assert found.spikes["lif"].sum() == 0


def test_a_recurrent_graph_and_an_unknown_node_are_rejected():
    nodes = {"a": lif(1), "b": lif(1), "input": nir.Input({"input": np.array([1])})}
    edges = [("input", "a"), ("a", "b"), ("b", "a")]
    with pytest.raises(ExportError, match="recurrent"):
        order(nir.NIRGraph(nodes, edges, type_check=False))
    delay = nir.Delay(delay=np.ones(1))
    with pytest.raises(ExportError, match="node delay of type Delay is not supported"):
        replay(graph_of(delay, shape=(1,)), torch.zeros(1, 1, 1))

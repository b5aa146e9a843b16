"""NIR graphs as networks: the same logits and gradients; what is rejected."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from spikeguard.attacks import PGD, Linf
from spikeguard.export.exporter import export_nir
from spikeguard.export.importer import from_nir, load_nir
from spikeguard.export.interpreter import replay
from spikeguard.export.refusals import ExportError
from spikeguard.models import WRN16_4
from spikeguard.neurons import IF, LIF, ATan, EvolutionaryLIF, spiking_layers
from spikeguard.rng import SampleStreams, stream
from tests.toys.exported import cnn, images, lively, mlp

nir = pytest.importorskip("nir", reason="nir is not installed: pip install 'spikeguard[nir]'")


def through_a_file(model, path, x):
    export_nir(model, path, x)
    return load_nir(path)


@pytest.mark.parametrize(
    "build",
    [
        lambda: mlp(LIF(0.5, surrogate=ATan(3.0), detach_reset=True)),
        lambda: cnn(mean=(0.4,), std=(0.3,)),
        lambda: cnn(IF()),
        lambda: cnn(EvolutionaryLIF(4, decay=0.7)),
        lambda: lively(WRN16_4(1, 5, T=3, width=1 / 8, image_size=8), images()),
    ],
    ids=["mlp", "cnn", "if", "evolutionary", "wrn"],
)
def test_logits_and_gradients_are_those_of_the_network(build, tmp_path):
    model, x = build(), images()
    found = through_a_file(model, tmp_path / "net.nir", x)
    torch.testing.assert_close(found(x), model(x), rtol=0, atol=1e-5)
    assert (found.T, found.num_classes, found.in_shape) == (model.T, 5, (1, 8, 8))
    grads = []
    for each in (model, found):
        x_ = x.clone().requires_grad_()
        loss = functional.cross_entropy(each(x_), torch.arange(6) % 5)
        grads.append(torch.autograd.grad(loss, x_)[0])
    scale = grads[0].abs().max()
    assert scale > 0
    torch.testing.assert_close(grads[1] / scale, grads[0] / scale, rtol=0, atol=1e-4)


def test_one_leak_for_each_channel_comes_back(tmp_path):
    model = cnn(EvolutionaryLIF(4, decay=0.5))
    for layer in spiking_layers(model).values():
        size = layer.leak.shape[1]
        leaks = torch.linspace(0.3, 0.9, size).view(size, *[1] * (layer.leak.ndim - 2))
        layer.leak.data[:] = leaks
    found = through_a_file(model, tmp_path / "net.nir", images())
    torch.testing.assert_close(found(images()), model(images()), rtol=0, atol=1e-5)


def test_an_attack_runs_on_the_network_of_a_file(tmp_path):
    found = through_a_file(cnn(), tmp_path / "net.nir", images())
    x, y = images(), found(images()).argmax(1)
    adversarial = PGD(Linf(0.2), steps=5)(found, x, y, generator=SampleStreams(0, range(6)))
    assert (found(adversarial).argmax(1) != y).any()


def test_a_graph_of_others_needs_the_number_of_steps():
    full = np.ones(2)
    lif = nir.LIF(tau=2e-4 * full, r=2 * full, v_leak=0 * full, v_threshold=full)
    graph = nir.NIRGraph.from_list(
        nir.Linear(weight=np.eye(2)), lif, nir.Affine(weight=np.eye(2), bias=np.zeros(2))
    )
    with pytest.raises(ExportError, match="--T: the file does not state"):
        from_nir(graph)
    x = torch.tensor([[0.7, 1.2]])
    network = from_nir(graph, T=3)
    wanted = replay(graph, x.expand(3, 1, 2)).output.mean(0)
    assert torch.equal(network(x), wanted)
    assert wanted.sum() > 0


def test_a_stated_number_of_steps_is_kept(tmp_path):
    model = mlp()
    export_nir(model, tmp_path / "net.nir", images())
    assert load_nir(tmp_path / "net.nir", T=4).T == 4
    with pytest.raises(ExportError, match=r"net.nir: --T: the file states T = 4, got 5"):
        load_nir(tmp_path / "net.nir", T=5)


def test_files_that_are_no_networks(tmp_path):
    with pytest.raises(ExportError, match=r"none.nir: no such file"):
        load_nir(tmp_path / "none.nir")
    (tmp_path / "text.nir").write_text("text")
    with pytest.raises(ExportError, match=r"text.nir: not a readable NIR file") as error:
        load_nir(tmp_path / "text.nir")
    assert "\n" not in str(error.value)
    whole = tmp_path / "net.nir"
    export_nir(mlp(), whole, images())
    (tmp_path / "cut.nir").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ExportError, match=r"cut.nir: not a readable NIR file"):
        load_nir(tmp_path / "cut.nir")
    nir.write(tmp_path / "node.nir", nir.Scale(scale=np.ones(1)))
    with pytest.raises(ExportError, match=r"node.nir: not a readable NIR file"):
        load_nir(tmp_path / "node.nir")


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"v_threshold": np.array([1.0, 2.0])}, "one v_threshold for all neurons"),
        ({"v_leak": np.array([0.1, 0.1])}, "v_leak 0 and v_reset 0"),
        ({"v_reset": np.array([0.1, 0.1])}, "v_leak 0 and v_reset 0"),
        ({"v_threshold": np.array([-1.0, -1.0])}, "v_threshold -1; it must be > 0"),
        ({"tau": np.array([1e-5, 1e-5])}, "tau 1e-05 to 1e-05 s, which must be above dt"),
    ],
)
def test_neurons_that_have_no_twin(node, message):
    full = np.ones(2)
    given = {"tau": 2e-4 * full, "r": full, "v_leak": 0 * full, "v_threshold": full}
    graph = nir.NIRGraph.from_list(nir.LIF(**{**given, **node}))
    with pytest.raises(ExportError, match=message):
        from_nir(graph, T=2)


def test_a_damaged_fact_is_named(tmp_path):
    export_nir(mlp(), tmp_path / "net.nir", images())
    graph = nir.read(tmp_path / "net.nir")
    graph.metadata["backward"] = "{"
    with pytest.raises(ExportError, match="damaged metadata 'backward'"):
        from_nir(graph)


def flattened(*ends):
    """A graph that flattens [2, 3, 4], once for each pair of axes."""
    nodes, edges, before = {"input": nir.Input({"input": np.array([2, 3, 4])})}, [], "input"
    for place, (start, end) in enumerate(ends):
        name, shape = f"flat{place}", np.array([2, 3, 4])
        nodes[name] = nir.Flatten({"input": shape}, start_dim=start, end_dim=end)
        edges.append((before, name))
        before = name
    nodes["fc"] = nir.Linear(np.ones((5, 24), np.float32))
    nodes["output"] = nir.Output({"output": np.array([5])})
    return nir.NIRGraph(nodes, [*edges, (before, "fc"), ("fc", "output")], metadata={"T": 2})


@pytest.mark.parametrize("end", [-1, 2])
def test_all_axes_may_be_flattened_by_either_name_of_the_last(end):
    graph, x = flattened((0, end)), torch.rand(2, 2, 3, 4, generator=stream(0, "x"))
    assert torch.equal(from_nir(graph)(x), replay(graph, x.expand(2, *x.shape)).output.mean(0))


def test_a_node_that_flattens_some_axes_is_rejected():
    with pytest.raises(ExportError, match="node flat0 flattens some axes only"):
        from_nir(flattened((0, 0), (0, -1)))


def test_two_nodes_that_become_one_name_are_rejected():
    eye = np.eye(2, dtype=np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([2])}),
        "a.b": nir.Linear(eye),
        "a_b": nir.Linear(eye),
        "output": nir.Output({"output": np.array([2])}),
    }
    edges = [("input", "a.b"), ("a.b", "a_b"), ("a_b", "output")]
    with pytest.raises(ExportError, match="two nodes are named 'a_b'"):
        from_nir(nir.NIRGraph(nodes, edges, metadata={"T": 1}))

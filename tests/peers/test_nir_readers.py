"""NIR files of trained networks in SpikingJelly, snnTorch and Norse: the same spikes everywhere."""

import contextlib
import io
import warnings
from functools import cache

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.export import export_nir, read_nir, replay, without_pooling
from spikeguard.models import CNN, MLP, WRN16_4
from spikeguard.neurons import IF, LIF
from spikeguard.rng import stream
from tests.toys.exported import lively
from tests.toys.fitting import fitted

pytest.importorskip("nir", reason="nir is not installed: pip install 'spikeguard[nir]'")

TRAIN = sg.data.load("digits").train.batch(slice(None))
X = sg.data.load("digits").test.batch(slice(24))[0]
NETWORKS = {
    "mlp": lambda: MLP(64, 10, 4, hidden=(48, 24), in_shape=(1, 8, 8)),
    "mlp, leak 0.9": lambda: MLP(64, 10, 4, hidden=(48,), in_shape=(1, 8, 8), neuron=LIF(0.9)),
    "cnn": lambda: CNN(1, 10, T=4, width=6, hidden=24, image_size=8, mean=(0.3,), std=(0.4,)),
    "wrn": lambda: lively(WRN16_4(1, 10, T=3, width=1 / 8, image_size=8), X),
    "if": lambda: MLP(64, 10, 4, hidden=(48,), in_shape=(1, 8, 8), neuron=IF()),
}
UNTRAINED = ("wrn",)
SMALL = {"bits": 4, "per": "channel", "threshold_grid": 0.3}


def cases(*without):
    """Return networks at full precision, and the trained ones quantised, without some networks."""
    names = [name for name in NETWORKS if name not in without]
    small = [pytest.param(name, SMALL, id=f"{name}, small") for name in names]
    full = [pytest.param(name, {}, id=name) for name in names]
    return full + [each for each in small if each.values[0] not in UNTRAINED]


@cache
def trained(name):
    network = NETWORKS[name]()
    return network if name in UNTRAINED else fitted(network, TRAIN, 3, stream(0, "order"))


def written(name, path, **options):
    """Return the file's graph, the inputs of its steps and what our interpreter computes."""
    model = trained(name)
    found = export_nir(model, path, X, **options)
    assert found.file.differ == 0
    inputs = model.encoder(X, model.T)
    graph = read_nir(path)
    replayed = replay(graph, inputs)
    assert all(0.01 < spikes.mean() < 0.9 for spikes in replayed.spikes.values())
    return graph, inputs, replayed


def spikes_of(reader, kind, layers, run):
    """Return what a reader's layers of neurons emit, [T, *N] for each of ``layers``."""
    found = {name: [] for name in layers}
    hooks = []
    for name in layers:
        module = reader.get_submodule(name)
        assert isinstance(module, kind), name
        hooks.append(
            module.register_forward_hook(
                lambda _, __, out, name=name: found[name].append(
                    (out[0] if isinstance(out, tuple) else out).detach()
                )
            )
        )
    run()
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(each) for name, each in found.items()}


def check(replayed, own):
    """No spike differs."""
    assert own.keys() == replayed.spikes.keys()
    for name, spikes in replayed.spikes.items():
        assert own[name].shape == spikes.shape
        assert int((own[name] != spikes).sum()) == 0, name


def in_steps(reader, inputs):
    """Run a reader that passes its state on."""
    state = None
    for each in inputs:
        _, state = reader(each, state)


@pytest.mark.parametrize(("name", "options"), cases())
def test_spikingjelly(name, options, tmp_path):
    exchange = pytest.importorskip(
        "spikingjelly.activation_based.nir_exchange",
        reason="SpikingJelly is not installed: make bench-peers",
    )
    _, inputs, replayed = written(name, tmp_path / "net.nir", **options)
    reader = exchange.import_from_nir(tmp_path / "net.nir", dt=1e-4)
    check(
        replayed,
        spikes_of(reader, nn.Module, replayed.spikes, lambda: in_steps(reader, inputs)),
    )


def one_by_one(reader, layers, inputs, run):
    """Run a reader on one sample after the other: its Flatten takes no batch axis."""
    found = [
        spikes_of(reader, nn.Module, layers, lambda b=b: run(inputs[:, b]))
        for b in range(inputs.shape[1])
    ]
    return {name: torch.stack([each[name] for each in found], 1) for name in layers}


@pytest.mark.parametrize(("name", "options"), cases("if"))  # read as a neuron with leak 0.9
def test_snntorch(name, options, tmp_path):
    reason = "snnTorch is not installed: make bench-peers"
    importer = pytest.importorskip("snntorch.import_nir", reason=reason)
    graph, inputs, replayed = written(name, tmp_path / "net.nir", **options)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = importer.import_from_nir(graph)

    def run(steps):
        for module in reader.modules():
            if hasattr(module, "reset_mem"):
                module.reset_mem()
        for each in steps:
            reader(each)

    check(replayed, one_by_one(reader, replayed.spikes, inputs, run))


@pytest.mark.parametrize(("name", "options"), cases("wrn"))  # it runs chains only
def test_norse(name, options, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        norse = pytest.importorskip(
            "norse.torch", reason="Norse is not installed: make bench-peers"
        )
        graph, inputs, replayed = written(name, tmp_path / "net.nir", **options)
        reader = norse.from_nir(without_pooling(graph), dt=1e-4)
    layers = replayed.spikes
    check(replayed, one_by_one(reader, layers, inputs, lambda steps: in_steps(reader, steps)))

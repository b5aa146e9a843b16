"""Export a network to a NIR file, and verify the file before it takes its name."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from spikeguard.export.folding import folded, without_noise
from spikeguard.export.gradient_facts import gradient_facts
from spikeguard.export.importer import from_nir
from spikeguard.export.nir_file import DT, read_nir, to_nir, write_nir
from spikeguard.export.quantise import Per, quantised
from spikeguard.export.refusals import ExportError, required
from spikeguard.export.verification import Agreement, compare
from spikeguard.models.snn import SNN
from spikeguard.neurons.modes import spiking_layers
from spikeguard.neurons.noisy_lif import NoisyLIF
from spikeguard.storage.atomic_files import atomic

__all__ = ["Exported", "Noise", "export_nir", "quiet"]

Noise = Literal["on", "off"]


@dataclass(frozen=True, eq=False)
class Exported:
    """A file that was written, and how it compares with the network.

    Attributes:
        path: The file.
        nodes: Number of nodes, input and output included.
        facts: What the file states in its metadata.
        mapping: The graph at full precision beside the network.
        file: The file, read back, beside the network that ``from_nir`` builds from it.
        before: Classes that the network predicts [n].
        after: Classes that the network built from the file predicts [n].
    """

    path: Path
    nodes: int
    facts: Mapping[str, str | int | float]
    mapping: Agreement
    file: Agreement
    before: Tensor
    after: Tensor


def export_nir(
    model: SNN,
    path: str | Path,
    x: Tensor,
    *,
    noise: Noise = "on",
    bits: int | None = None,
    per: Per = "tensor",
    threshold_grid: float | None = None,
    stated: Mapping[str, str] | None = None,
) -> Exported:
    """Write a network to a NIR file and verify the file on inputs.

    Args:
        model: The network, of ``spikeguard.models``.
        path: The file to write or replace.
        x: Inputs on which the file is verified [n, *in_shape].
        noise: "off" exports a network with noisy neurons without its noise; "on" rejects it.
        bits: Bits of a weight, 2 to 8; None keeps float32.
        per: One quantisation step for each layer ("tensor") or output channel ("channel").
        threshold_grid: Round thresholds to multiples of this; None keeps them.
        stated: Further facts for the metadata, such as the checkpoint of the weights.

    Raises:
        ExportError: If the package nir is missing, NIR cannot hold the network, or the file does
            not compute what the network does. No file is written then.
    """
    required("nir", "nir")
    path = Path(path)
    network = quiet(model, noise)
    graph = folded(network)
    graph.facts |= {"spikeguard": version("spikeguard"), "dt": DT, "comparator": ">="}
    graph.facts |= {"reset": "hard", "readout": "mean over T", "noise": _stated(model, noise)}
    graph.facts |= {**gradient_facts(network), **(stated or {})}
    layers = {node.name: node.layer for node in graph.neurons()}
    mapping = compare(to_nir(graph), network, x, layers)
    small = quantised(graph, bits=bits, per=per, threshold_grid=threshold_grid)
    with atomic(path) as temporary:
        write_nir(to_nir(small), temporary)
        found = read_nir(temporary)
        built = from_nir(found)
        again = {name.split(".")[2]: name for name in spiking_layers(built)}
        file = compare(found, built, x, again)
    with torch.no_grad():
        before, after = network(x).argmax(1), built(x).argmax(1)
    facts = {"T": small.T, "encoder": small.encoder, **small.facts}
    return Exported(path, len(found.nodes), facts, mapping, file, before, after)


def quiet(model: SNN, noise: Noise) -> SNN:
    """Return a copy of the network in evaluation mode, without noise if ``noise`` is "off"."""
    if noise not in ("on", "off"):
        raise ExportError(f"--noise: on or off, got {noise!r}.")
    if noise == "off" and not _noisy(model):
        raise ExportError("--noise off: the network has no noisy neurons; leave it out.")
    return (without_noise(model) if noise == "off" else copy.deepcopy(model)).eval()


def _noisy(model: SNN) -> list[NoisyLIF]:
    neurons = [m for m in model.modules() if isinstance(m, NoisyLIF)]
    return [each for each in neurons if each.sigma > 0 and "test" in each.noise_in]


def _stated(model: SNN, noise: Noise) -> str:
    if noise == "on":
        return "none"
    sigmas = sorted({each.sigma for each in _noisy(model)})
    return f"off; trained with sigma {', '.join(f'{sigma:.4g}' for sigma in sigmas)}"

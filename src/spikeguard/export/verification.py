"""Compare a NIR graph with a network on inputs: spikes of every layer, logits, predictions.

Every layer of the graph gets the spikes that the network has before it, so that each spike train is
compared on its own. If none differs, the graph that runs on its own spikes is equal too. The two
add the same numbers in another order. A spike that differs because rounding puts the potential on
the other side of the threshold is counted; every other difference is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spikeguard.export.interpreter import replay
from spikeguard.export.nir_file import DT
from spikeguard.export.refusals import ExportError
from spikeguard.kernels.selection import unfused
from spikeguard.models.snn import SNN
from spikeguard.neurons.modes import record

__all__ = ["Agreement", "TOLERANCE", "compare"]

TOLERANCE = 1e-4  # largest difference of a logit, relative to the largest logit or 1
ROUNDING = 1e-5  # difference of two potentials, relative to the threshold, that rounding explains
_BATCH = 32


@dataclass(frozen=True)
class Agreement:
    """How a graph and a network compare on n inputs.

    Attributes:
        n: Number of inputs.
        spikes: Entries of the spike trains that were compared.
        differ: Spike trains (of one neuron and input) that differ, all explained by rounding.
        logits: Largest difference of a logit where each layer gets the network's spikes.
        same: Inputs for which the graph, on its own spikes, predicts the same class.
    """

    n: int
    spikes: int
    differ: int
    logits: float
    same: int

    def __str__(self) -> str:
        trains = f"{self.differ} of {self.spikes:,} spikes differ"
        why = ", decided by rounding at the threshold" if self.differ else ""
        logits = f"logits within {self.logits:.1e}" if self.logits else "logits equal"
        return (
            f"{trains} on {self.n} inputs{why}; {logits}; {self.same} of {self.n} predictions equal"
        )


@torch.no_grad()
def compare(
    graph: Any, network: SNN, x: Tensor, layers: Mapping[str, str], *, dt: float = DT
) -> Agreement:
    """Run a graph and a network on the same inputs.

    Args:
        graph: A ``nir.NIRGraph``.
        network: The network, in evaluation mode, without noise.
        x: Inputs of the network [B, *in_shape].
        layers: For every LIF and IF node, the name of the network's layer of neurons.
        dt: Time step of the graph.

    Raises:
        ExportError: If something differs that rounding does not explain.
    """
    spikes = differ = same = 0
    worst = 0.0
    for part in torch.split(x, _BATCH):
        with unfused(), record(network) as trace:
            logits = network(part)
        inputs = network.encoder(part, network.T)
        own = {node: trace[layer].spikes.to(part.dtype) for node, layer in layers.items()}
        found = replay(graph, inputs, dt=dt, given=own)
        for node, layer in layers.items():
            seen = trace[layer]
            v, v_th = seen.v - seen.v_reset, seen.v_th - seen.v_reset
            differ += _explained(node, own[node] != found.spikes[node], v, found.v[node], v_th)
            spikes += own[node].numel()
        gap = float((found.output.mean(0) - logits).abs().max())
        if gap > TOLERANCE * max(1.0, float(logits.abs().max())):
            raise ExportError(
                f"verification: a logit differs by {gap:.2g}, more than {TOLERANCE:g} of the "
                "largest; nothing was written."
            )
        worst = max(worst, gap)
        alone = replay(graph, inputs, dt=dt).output.mean(0)
        same += int((alone.argmax(1) == logits.argmax(1)).sum())
    return Agreement(len(x), spikes, differ, worst, same)


def _explained(node: str, wrong: Tensor, v: Tensor, found: Tensor, v_th: float) -> int:
    """Count the spike trains that differ; reject one that rounding does not explain.

    Args:
        node: Name of the node.
        wrong: Where the spikes of network and graph differ [T, B, *N].
        v: Potentials of the network before reset.
        found: Those of the graph.
        v_th: The threshold.
    """
    if not bool(wrong.any()):
        return 0
    first = wrong & (wrong.cumsum(0) == 1)  # later spikes follow from the first one that differs
    gap = (v - found).abs()[first]
    if bool((gap == 0).any()):
        raise ExportError(
            f"verification: {int(wrong.sum())} of {wrong.numel()} spikes of {node} differ at equal "
            "potentials: the thresholds differ; nothing was written."
        )
    if float(gap.max()) > ROUNDING * v_th:
        raise ExportError(
            f"verification: {int(wrong.sum())} of {wrong.numel()} spikes of {node} differ, with "
            f"potentials that are up to {float(gap.max()):.2g} apart; nothing was written."
        )
    return int(first.sum())

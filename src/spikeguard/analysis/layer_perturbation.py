"""True and simplified perturbation of the membrane potentials of one spiking layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spikeguard.models.adapters.foreign_neuron import ForeignNeuron
from spikeguard.neurons.dlif import DLIF
from spikeguard.neurons.perturbation import (
    layer_dynamics,
    perturbation_dynamics,
    reset_change,
    spike_train_distance,
    tasad,
)
from spikeguard.neurons.trace import LayerTrace

__all__ = ["LayerPerturbation", "perturbations", "with_leak", "without_gates"]


@dataclass(frozen=True, eq=False)
class LayerPerturbation:
    """Perturbation of one layer, [T, B, *N] each, in units of the threshold above rest.

    Attributes:
        true: eps = v - v' of the two passes (stable-snn, Eqs. 7 to 10).
        drive: Difference of the input currents, with the gate of the layer: the first input of eps.
        reset: What resets add: the second input of eps (Eq. 10); 0 at the first step.
        plain: Simplified recursion (Eq. 11) with the leak factor and without the gates of DLIF.
        gated: Simplified recursion with the gates; equal to ``plain`` for other neurons.
        rest: true minus the recursion with both inputs: rounding errors, and what the equations
            leave out for a foreign neuron of another recurrence.
        spikes: Difference of the spikes.
    """

    true: Tensor
    drive: Tensor
    reset: Tensor
    plain: Tensor
    gated: Tensor
    rest: Tensor
    spikes: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, layer: object, clean: LayerTrace, other: LayerTrace) -> LayerPerturbation:
        """Return the perturbation between two passes with the same noise.

        Args:
            layer: The layer.
            clean: Its trace on clean inputs.
            other: Its trace on perturbed ones.
        """
        clean, other = with_leak(layer, clean), with_leak(layer, other)
        assert clean.decay is not None
        change = clean.current.float() - other.current.float()
        drive = change if clean.gate is None else clean.gate * change
        reset = reset_change(clean, other)
        true = clean.v - other.v
        scale = clean.v_th - clean.v_reset
        gated = layer_dynamics(change, clean) / scale
        ungated = without_gates(layer, clean)
        plain = gated if ungated is clean else layer_dynamics(change, ungated) / scale
        return cls(
            true=true / scale,
            drive=drive / scale,
            reset=reset / scale,
            plain=plain,
            gated=gated,
            rest=(true - perturbation_dynamics(drive + reset, clean.decay)) / scale,
            spikes=clean.spikes.float() - other.spikes.float(),
        )

    def sums(self) -> dict[str, Tensor]:
        """Return sums over the neurons for every step and image, [T, B] each, summed in float64.

        "true", "drive", "reset", "plain", "gated" and "rest" are sums of squares; "plain_error" is
        that of plain - true and "plain_product" the sum of plain times true, the same for gated.
        "tasad" and "std" are the distances (Eqs. 12 and 13) of the steps up to each step.
        """
        found = {name: _over_neurons(getattr(self, name).square()) for name in _SQUARED}
        for name in ("plain", "gated"):
            predicted = getattr(self, name)
            if name == "gated" and predicted is self.plain:
                found |= {f"gated_{what}": found[f"plain_{what}"] for what in ("error", "product")}
                continue
            found[f"{name}_error"] = _over_neurons((predicted - self.true).square())
            found[f"{name}_product"] = _over_neurons(predicted * self.true)
        for name, distance in {"tasad": tasad, "std": spike_train_distance}.items():
            rows = [distance(self.spikes[: t + 1]) for t in range(len(self.spikes))]
            found[name] = torch.stack(rows).double()
        return found


_SQUARED = ("true", "drive", "reset", "plain", "gated", "rest")


def with_leak(layer: object, trace: LayerTrace) -> LayerTrace:
    """Return a trace with leak factor; for a foreign neuron, with those of its recurrence."""
    if not isinstance(layer, ForeignNeuron):
        return trace
    known = layer.recurrence()
    gain: Any = known.gain
    gate = gain if isinstance(gain, Tensor) else trace.current.new_tensor(gain)
    return replace(trace, decay=known.decay, gate=gate)


def without_gates(layer: object, trace: LayerTrace) -> LayerTrace:
    """Return a trace with the leak factor that the layer has when all gates of DLIF are 1."""
    return replace(trace, decay=layer.decay, gate=None) if isinstance(layer, DLIF) else trace


def perturbations(
    layers: Mapping[str, object], clean: Mapping[str, LayerTrace], other: Mapping[str, LayerTrace]
) -> dict[str, LayerPerturbation]:
    """Return the perturbation of every recorded layer by name."""
    return {name: LayerPerturbation.of(layers[name], clean[name], other[name]) for name in clean}


def _over_neurons(x: Tensor) -> Tensor:
    return x.flatten(2).sum(2, dtype=torch.float64) if x.ndim > 2 else x.double()

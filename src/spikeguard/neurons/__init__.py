"""Spiking neurons: neuron = dynamics + surrogate. All of them use the recurrence of the kernels."""

from __future__ import annotations

from spikeguard.neurons.base import Neuron
from spikeguard.neurons.custom_backward import Analogue, BackwardRule, Fired, Prescription
from spikeguard.neurons.dlif import DLIF
from spikeguard.neurons.evolutionary import EvolutionaryLIF
from spikeguard.neurons.lif import IF, LIF, PLIF
from spikeguard.neurons.modes import (
    HasSpikingLayers,
    backward_mode,
    backward_rule,
    record,
    spiking_layers,
    under_attack,
)
from spikeguard.neurons.noisy_lif import NoisyLIF
from spikeguard.neurons.spike_marks import are_spikes
from spikeguard.neurons.stog import StoG
from spikeguard.neurons.surrogate import (
    SURROGATES,
    ATan,
    Gaussian,
    Rectangular,
    Sigmoid,
    StraightThrough,
    SuperSpike,
    Surrogate,
    Triangular,
)
from spikeguard.neurons.trace import LayerTrace, SpikingLayer, Trace

__all__ = [
    "DLIF",
    "IF",
    "LIF",
    "NEURONS",
    "PLIF",
    "SURROGATES",
    "ATan",
    "Analogue",
    "BackwardRule",
    "EvolutionaryLIF",
    "Fired",
    "Gaussian",
    "HasSpikingLayers",
    "LayerTrace",
    "Neuron",
    "NoisyLIF",
    "Prescription",
    "Rectangular",
    "Sigmoid",
    "SpikingLayer",
    "StoG",
    "StraightThrough",
    "SuperSpike",
    "Surrogate",
    "Trace",
    "Triangular",
    "are_spikes",
    "backward_mode",
    "backward_rule",
    "record",
    "spiking_layers",
    "under_attack",
]

NEURONS: dict[str, type[Neuron]] = {
    "if": IF,
    "lif": LIF,
    "plif": PLIF,
    "noisy_lif": NoisyLIF,
    "dlif": DLIF,
    "stog": StoG,
    "evolutionary_lif": EvolutionaryLIF,
}

"""Spiking neurons: neuron = dynamics + surrogate, all on the one recurrence of the kernels."""

from __future__ import annotations

from spikeguard.neurons.base import (
    LayerTrace,
    Neuron,
    Trace,
    are_spikes,
    backward_mode,
    record,
    under_attack,
)
from spikeguard.neurons.dlif import DLIF
from spikeguard.neurons.evolutionary import EvolutionaryLIF
from spikeguard.neurons.lif import IF, LIF, PLIF
from spikeguard.neurons.noisy_lif import NoisyLIF
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

__all__ = [
    "DLIF",
    "IF",
    "LIF",
    "NEURONS",
    "PLIF",
    "SURROGATES",
    "ATan",
    "EvolutionaryLIF",
    "Gaussian",
    "LayerTrace",
    "Neuron",
    "NoisyLIF",
    "Rectangular",
    "Sigmoid",
    "StoG",
    "StraightThrough",
    "SuperSpike",
    "Surrogate",
    "Trace",
    "Triangular",
    "are_spikes",
    "backward_mode",
    "record",
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

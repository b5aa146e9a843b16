"""Analyses of a trained network, by name in ``ANALYSES``."""

from __future__ import annotations

from spikeguard.analysis.activity import Activity
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.examples import Examples
from spikeguard.analysis.flips import Flips
from spikeguard.analysis.gain import Gain, layer_gains
from spikeguard.analysis.gates import Gates
from spikeguard.analysis.jacobian import Jacobian
from spikeguard.analysis.landscape import Landscape
from spikeguard.analysis.layer_perturbation import LayerPerturbation, perturbations
from spikeguard.analysis.lif_twin import plain_twin
from spikeguard.analysis.measurement import Measurement, Quantity
from spikeguard.analysis.membrane import (
    LayerCounts,
    MembraneHistogram,
    default_edges,
    membrane_histogram,
)
from spikeguard.analysis.neuron_traces import Traces
from spikeguard.analysis.noise import Noise
from spikeguard.analysis.operations import Operations
from spikeguard.analysis.overhead import Overhead
from spikeguard.analysis.perturbation import Perturbation
from spikeguard.analysis.potentials import Potentials
from spikeguard.analysis.region_counts import RegionCount, count_regions, crossings
from spikeguard.analysis.regions import Regions
from spikeguard.analysis.registry import ANALYSES
from spikeguard.analysis.saliency import Saliency, half_share, input_gradient
from spikeguard.analysis.spectral_norm import SpectralNorms, jacobians, spectral_norms
from spikeguard.analysis.synchrony import Synchrony
from spikeguard.analysis.theory import (
    flip_probability,
    peak_noise,
    perturbation_bound,
    perturbation_gain,
    shift_flip_probability,
    vulnerability_bound,
    vulnerability_ratio,
)
from spikeguard.analysis.weight_landscape import WeightLandscape
from spikeguard.analysis.zero_gradients import (
    OperationGradient,
    operation_gradients,
    weight_gradients,
)
from spikeguard.analysis.zeros import Zeros
from spikeguard.models.spike_counts import LayerSpikes, SpikeCounts, count_spikes
from spikeguard.models.synaptic_operations import LayerOperations, count_operations, fan_out

__all__ = [
    "ANALYSES",
    "Activity",
    "Examples",
    "Flips",
    "Gain",
    "Gates",
    "Jacobian",
    "Landscape",
    "LayerCounts",
    "LayerOperations",
    "LayerPerturbation",
    "LayerSpikes",
    "Measurement",
    "MembraneHistogram",
    "Noise",
    "NotApplicable",
    "OperationGradient",
    "Operations",
    "Overhead",
    "Perturbation",
    "Potentials",
    "Quantity",
    "RegionCount",
    "Regions",
    "Saliency",
    "SpectralNorms",
    "SpikeCounts",
    "Synchrony",
    "Traces",
    "WeightLandscape",
    "Zeros",
    "count_operations",
    "count_regions",
    "count_spikes",
    "crossings",
    "default_edges",
    "fan_out",
    "flip_probability",
    "half_share",
    "input_gradient",
    "jacobians",
    "layer_gains",
    "membrane_histogram",
    "operation_gradients",
    "peak_noise",
    "perturbation_bound",
    "perturbation_gain",
    "perturbations",
    "plain_twin",
    "shift_flip_probability",
    "spectral_norms",
    "vulnerability_bound",
    "vulnerability_ratio",
    "weight_gradients",
]

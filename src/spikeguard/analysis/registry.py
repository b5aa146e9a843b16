"""All analyses by name, in the order in which they run and are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spikeguard.analysis.activity import Activity
from spikeguard.analysis.examples import Examples
from spikeguard.analysis.flips import Flips
from spikeguard.analysis.gain import Gain
from spikeguard.analysis.gates import Gates
from spikeguard.analysis.jacobian import Jacobian
from spikeguard.analysis.landscape import Landscape
from spikeguard.analysis.neuron_traces import Traces
from spikeguard.analysis.noise import Noise
from spikeguard.analysis.operations import Operations
from spikeguard.analysis.overhead import Overhead
from spikeguard.analysis.perturbation import Perturbation
from spikeguard.analysis.potentials import Potentials
from spikeguard.analysis.regions import Regions
from spikeguard.analysis.saliency import Saliency
from spikeguard.analysis.synchrony import Synchrony
from spikeguard.analysis.weight_landscape import WeightLandscape
from spikeguard.analysis.zeros import Zeros

__all__ = ["ANALYSES"]

_ALL: tuple[Callable[..., Any], ...] = (
    Potentials,
    Traces,
    Flips,
    Noise,
    Perturbation,
    Gain,
    Gates,
    Zeros,
    Examples,
    Saliency,
    Jacobian,
    Regions,
    Landscape,
    WeightLandscape,
    Synchrony,
    Activity,
    Operations,
    Overhead,
)
ANALYSES: Mapping[str, Callable[..., Any]] = {each.name: each for each in _ALL}  # type: ignore[attr-defined]

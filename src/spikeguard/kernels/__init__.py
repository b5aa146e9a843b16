"""The membrane recurrence over T time steps, forward and backward: one signature, several kernels.

``integrate_and_fire`` checks its arguments and calls a kernel. ``reference`` is the definition.
``multistep`` computes the same in one autograd node with a fraction of the memory. ``cpu`` and
``triton`` do it in one pass over memory, batch normalisation included. By default the fastest
available kernel runs; ``multistep`` runs the calls that this kernel does not support.
"""

from __future__ import annotations

from spikeguard.kernels.dispatch import averages, integrate_and_fire
from spikeguard.kernels.fused import can_fuse, fixed_scale, normalised
from spikeguard.kernels.layout import regular
from spikeguard.kernels.multistep import multistep
from spikeguard.kernels.reference import Firing, Reset, reference, reset_potential
from spikeguard.kernels.selection import (
    KERNELS,
    as_defined,
    default_kernel,
    fusing,
    unfused,
    use_kernel,
    why_not,
)

__all__ = [
    "Firing",
    "KERNELS",
    "Reset",
    "as_defined",
    "averages",
    "can_fuse",
    "default_kernel",
    "fixed_scale",
    "fusing",
    "integrate_and_fire",
    "multistep",
    "normalised",
    "reference",
    "regular",
    "reset_potential",
    "unfused",
    "use_kernel",
    "why_not",
]

r"""Perturbation of one spiking layer between two passes: of its potentials and of its spikes.

With eps = v - v', I the input current, a the gate on it (1 without one) and r = v - u the part of
the potential that a reset removes, the difference of two passes of one layer follows

.. math::
    \varepsilon[t] = \lambda[t]\,\varepsilon[t-1] + a[t]\,(I[t] - I'[t])
                     - \lambda[t]\,(r[t-1] - r'[t-1])

(stable-snn, Eqs. 7 to 10). Without the last term it is the simplified recursion, Eq. 11.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.kernels.reference import step as step_of
from spikeguard.neurons.trace import LayerTrace

__all__ = [
    "layer_dynamics",
    "ms_mppd",
    "perturbation_dynamics",
    "reset_change",
    "spike_train_distance",
    "tasad",
]


def perturbation_dynamics(drive: Tensor, decay: float | Tensor) -> Tensor:
    r"""Return eps[t] = decay[t] eps[t-1] + drive[t], eps[0] = 0, shaped like ``drive``.

    With one decay for all steps, a constant drive J gives J (1 - decay^t) / (1 - decay). The gain
    from drive to eps, both as vectors over time, is then the largest singular value of the lower
    triangular Toeplitz matrix decay^(t-s): at most (1 - decay^T) / (1 - decay). The paper's smaller
    bound, the square root of 1 / (1 - decay) (Theorem 3.1), does not hold for every T.

    Args:
        drive: Difference of the input currents [T, ...].
        decay: lambda: a number in [0, 1], a scalar, or a tensor that broadcasts to ``drive`` with
            one entry for each step.

    Example:
        >>> perturbation_dynamics(torch.ones(3), 0.5)
        tensor([1.0000, 1.5000, 1.7500])
    """
    eps = [drive[0]]
    for t in range(1, len(drive)):
        leak = step_of(decay, t) if isinstance(decay, Tensor) else decay
        eps.append(leak * eps[-1] + drive[t])
    return torch.stack(eps)


def layer_dynamics(change: Tensor, layer: LayerTrace) -> Tensor:
    """Return the simplified recursion with the leak factor and the gate of a layer.

    Args:
        change: Difference of the input currents [T, B, *N], before the gate.
        layer: A trace of the layer.

    Raises:
        ValueError: If the leak factor of the layer is not known.

    Source: stable-snn, Eq. 11, with the neuron of section 3.3.
    """
    if layer.decay is None:
        raise ValueError("the leak factor of the layer is not known.")
    gated = change if layer.gate is None else layer.gate * change
    return perturbation_dynamics(gated, layer.decay)


def reset_change(clean: LayerTrace, perturbed: LayerTrace) -> Tensor:
    """Return what resets add to the perturbation: -decay[t] (r[t-1] - r'[t-1]) [T, B, *N].

    r = v - u is what a reset removes: v s for a hard reset to 0, v_th s for a soft one.

    Raises:
        ValueError: If the leak factor of the layer is not known.

    Source: stable-snn, Eq. 10.
    """
    if clean.decay is None:
        raise ValueError("the leak factor of the layer is not known.")
    removed = (clean.v - clean.u) - (perturbed.v - perturbed.u)
    before = torch.cat([torch.zeros_like(removed[:1]), removed[:-1]])
    return -clean.decay * before


def ms_mppd(eps: Tensor) -> Tensor:
    """Return the sum of squares of eps [T, B, *N] over steps and neurons, [B] (Eq. 14)."""
    return _of_samples(eps).square().sum(1)


def tasad(change: Tensor) -> Tensor:
    """Return the time-averaged spiking activity distance [B]: the norm of the rate difference.

    Args:
        change: Difference of the spikes [T, B, *N].

    Source: stable-snn, Eq. 12; Kundu et al., ICCV 2021 (arXiv:2110.11417).
    """
    return spike_train_distance(change.mean(0, keepdim=True))


def spike_train_distance(change: Tensor) -> Tensor:
    """Return the spike train distance (STD) [B]: the norm of the difference over all steps.

    Args:
        change: Difference of the spikes [T, B, *N].

    Source: stable-snn, Eq. 13; Ding et al., "SNN-RAT", NeurIPS 2022.
    """
    length: Tensor = torch.linalg.vector_norm(_of_samples(change), dim=1)  # its gradient at 0 is 0
    return length


def _of_samples(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1)  # [B, T * neurons]

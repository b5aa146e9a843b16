"""MS-MPPD: a penalty on the effect of a perturbation on the membranes of one spiking layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor, nn

from spikeguard.defences.piece import Measured, Piece, Step
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.perturbation import (
    layer_dynamics,
    ms_mppd,
    perturbation_dynamics,
    spike_train_distance,
    tasad,
)
from spikeguard.neurons.trace import LayerTrace

__all__ = ["MPPD", "Distance", "perturbation_dynamics"]

Distance = Literal["ms-mppd", "tasad", "std"]


@dataclass(frozen=True, repr=False)
class MPPD(Piece):
    r"""Penalise the distance between the clean and the perturbed pass in one spiking layer.

    ``ms-mppd`` is the mean square of the membrane potential perturbation dynamics, driven by the
    difference of the layer's input currents and free of spikes and resets:

    .. math::
        \varepsilon[t] = \lambda\,\varepsilon[t-1] + I[t] - \tilde I[t],\quad \varepsilon[0] = 0,
        \qquad L = \rho\,\overline{\varepsilon^2}

    The other two are the spike distances that the paper compares it with:

    .. math::
        \mathrm{TASAD} = \Bigl\| \tfrac1T \sum_t (s[t] - \tilde s[t]) \Bigr\|_2, \qquad
        \mathrm{STD} = \sqrt{\textstyle\sum_t \| s[t] - \tilde s[t] \|_2^2}

    The current is the input current of the layer, before the gates of a DLIF neuron and the noise
    of a NoisyLIF neuron. lambda is a parameter of this piece, not the decay of the layer. With
    ``gated`` the recursion is that of the layer itself, with its leak factor lambda and, for DLIF,
    its gates a[t], whichever they are on:

    .. math::
        \varepsilon[t] = \lambda\,a[t]\,\varepsilon[t-1] + I[t] - \tilde I[t]
        \quad\text{or}\quad
        \varepsilon[t] = \lambda\,\varepsilon[t-1] + a[t]\,(I[t] - \tilde I[t])

    Args:
        rho: Weight, >= 0; 0 gives the same weights as training without this piece, bit for bit: no
            clean pass is run for it.
        decay: Decay lambda of the recursion, in [0, 1]; used by ``ms-mppd`` only.
        distance: "ms-mppd", "tasad" or "std".
        layer: "last" for the last spiking layer, the name of a spiking layer, or its index in
            network order, from 0, or from the end with -1.
        detach_clean: Treat the clean pass as a constant, as in the public code. False
            differentiates both passes; the paper does not say.
        reduction: "mean" is the public code: the mean square over steps, batch and neurons (for
            ``tasad`` of the rate difference, for ``std`` of the spike difference). "sum" is the
            paper's formula for one sample (Eqs. 12 to 14), averaged over the batch: for ``ms-mppd``
            larger by steps times neurons, 32768 for the last layer of VGG-11 and T = 8.
        gated: Use the leak factor and the gates of the layer instead of ``decay``; for ``ms-mppd``
            only. The public code does not. It follows from Eq. 8 with the neuron of section 3.3,
            which the paper does not write out.

    Raises:
        ValueError: If a number is out of range or a word unknown; before training, if no piece
            perturbs or the model has no such spiking layer.

    Source: Ding et al., "Robust stable spiking neural networks", ICML 2024, Eqs. 11 to 14 and 17,
        and its public training code; TASAD: Kundu et al., ICCV 2021 (arXiv:2110.11417); STD: Ding
        et al., "SNN-RAT", NeurIPS 2022.
    """

    name: ClassVar[str] = "mppd"
    needs_trace: ClassVar[bool] = True
    needs_clean: ClassVar[bool] = True
    needs_perturbed: ClassVar[bool] = True
    added_later: ClassVar[tuple[str, ...]] = ("gated",)

    rho: float = 1.0
    decay: float = 0.99
    distance: Distance = "ms-mppd"
    layer: str | int = "last"
    detach_clean: bool = True
    reduction: Literal["mean", "sum"] = "mean"
    gated: bool = False

    def __post_init__(self) -> None:
        if not (self.rho >= 0 and math.isfinite(self.rho)):
            raise ValueError(f"MPPD: rho is a weight >= 0, got {self.rho:g}.")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"MPPD: decay is a leak factor in [0, 1], got {self.decay:g}.")
        if self.distance not in get_args(Distance):
            known = ", ".join(get_args(Distance))
            raise ValueError(f"MPPD: distance is one of {known}; got {self.distance!r}.")
        if self.reduction not in ("mean", "sum"):
            raise ValueError(f"MPPD: reduction is 'mean' or 'sum', got {self.reduction!r}.")
        if self.gated and self.distance != "ms-mppd":
            raise ValueError(
                f"MPPD: gated belongs to distance 'ms-mppd', got {self.distance!r}; leave it out."
            )

    @property
    def idle(self) -> bool:
        """Whether rho is 0: then no clean pass is run, which would change statistics and noise."""
        return self.rho == 0

    def require(self, model: nn.Module, options: object) -> None:
        """Reject a model without the chosen layer.

        Raises:
            ValueError: If there is no such layer; the message lists the spiking layers.
        """
        self._choose([name for name, m in model.named_modules() if isinstance(m, Neuron)])

    def measure(self, clean: LayerTrace, perturbed: LayerTrace) -> Tensor:
        """Return the distance between two passes in one layer, a scalar, before weighting.

        Args:
            clean: Trace of the layer on the clean batch; currents and spikes [T, B, *N].
            perturbed: Trace of the layer on the perturbed batch.
        """
        of_currents = self.distance == "ms-mppd"
        reference, other = (p.current if of_currents else p.spikes for p in (clean, perturbed))
        reference = reference.detach() if self.detach_clean else reference
        change = reference.float() - other.float()
        if of_currents:
            change = self._dynamics(change, perturbed)
        if self.reduction == "sum":
            of_sample = {"ms-mppd": ms_mppd, "tasad": tasad, "std": spike_train_distance}
            return of_sample[self.distance](change).mean()
        return (change.mean(0) if self.distance == "tasad" else change).square().mean()

    def term(self, step: Step) -> Tensor:
        """Return rho times the distance in the chosen layer."""
        return self.measured(step).loss

    def measured(self, step: Step) -> Measured:
        """Return rho and the distance in the chosen layer."""
        clean, perturbed = (p.trace for p in step.both)
        assert clean is not None and perturbed is not None
        name = self._choose(list(clean))
        distance = self.measure(clean[name], perturbed[name])
        return Measured(self.rho, distance, {name: distance})

    def _dynamics(self, drive: Tensor, layer: LayerTrace) -> Tensor:
        if not self.gated:
            return perturbation_dynamics(drive, self.decay)
        if layer.decay is None:
            raise ValueError("MPPD: gated needs the leak factor of the layer, which is not known.")
        return layer_dynamics(drive, layer)

    def _choose(self, names: list[str]) -> str:
        """Return the name of the chosen layer, given the names of all spiking layers."""
        if not names:
            raise ValueError("MPPD: the model has no spiking layer to compare.")
        if isinstance(self.layer, str):
            name = names[-1] if self.layer == "last" else self.layer
            if name in names:
                return name
        elif -len(names) <= self.layer < len(names):
            return names[self.layer]
        known = ", ".join(names)
        raise ValueError(
            f"MPPD: no spiking layer {self.layer!r}; write 'last', an index below {len(names)}, or "
            f"one of {known}."
        )

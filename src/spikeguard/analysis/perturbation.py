"""Analysis ``perturbation``: membrane potential perturbation dynamics, true and simplified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spikeguard.analysis.attacked import attacked, traces
from spikeguard.analysis.base import Batch, Passes, Section, batches, count_of, settings_of
from spikeguard.analysis.intervals import mean_over_images, root_ratio_over_images
from spikeguard.analysis.layer_perturbation import perturbations
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.perturbation_plots import perturbation_plots, perturbation_table
from spikeguard.analysis.perturbed import as_far_at_random, at_radius, norms, radii
from spikeguard.analysis.plots import Plot, Table
from spikeguard.analysis.texts import span, whole_percent
from spikeguard.attacks.base import Attack, cost
from spikeguard.data.images import Data, as_image_set
from spikeguard.neurons.modes import spiking_layers
from spikeguard.system.progress import ProgressCallback

__all__ = ["Perturbation"]

Numbers = dict[str, NDArray[np.float64]]  # by name, [kind, eps, layer, step, image]
_RECORDED = 12  # forward passes that a recorded and evaluated pass costs
_KINDS = ("attack", "random")
_ALONG = ("kind", "eps", "layer", "step")
_SQUARES = {
    "true": "mean square of eps = v - v' (Eqs. 7 to 10)",
    "drive": "mean square of the difference of the gated input currents",
    "reset": "mean square of what resets add (Eq. 10)",
    "plain": "mean square of the simplified eps (Eq. 11), without gates",
    "gated": "mean square of the simplified eps (Eq. 11), with the gates of DLIF",
}
_DISTANCES = {
    "tasad": "time-averaged spiking activity distance of the steps so far (Eq. 12), mean",
    "std": "spike train distance of the steps so far (Eq. 13), mean",
}


@dataclass(frozen=True)
class Perturbation:
    """Measure how an attack, and a random change of equal norm, move membrane potentials.

    Args:
        attack: The attack at the largest radius; its step lengths shrink with the radius.
        limit: Number of images; None for all.
        points: Number of radii above 0, >= 1.

    Raises:
        ValueError: If points is below 1, or above 1 and the radius of the attack is fixed.

    Source: Ding et al., "Robust stable spiking neural networks", ICML 2024, Eqs. 7 to 14, Figs. 1
        and 3.
    """

    attack: Attack
    limit: int | None = 32
    points: int = 4

    name: ClassVar[str] = "perturbation"
    title: ClassVar[str] = "Perturbation of the membrane potentials, true and simplified"
    section: ClassVar[Section] = "membranes"
    source: ClassVar[str] = "stable-snn paper, Eqs. 7 to 14, Figs. 1 and 3"
    about: ClassVar[str] = (
        "Difference of the membrane potentials between clean and perturbed images. The paper's "
        "recursion (MPPD, Eq. 11) leaves out resets; its error is shown as a share of the true "
        "perturbation, where 100 % is the error of predicting no perturbation at all."
    )

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"perturbation: points is a number of radii >= 1, got {self.points}.")
        if self.points > 1 and self.attack.threat.eps > 0:
            at_radius(self.attack, self.attack.threat.eps / 2)

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return mean squares, errors and distances along "kind", "eps", "layer" and "step"."""
        eps = radii(self.attack.threat.eps, self.points)
        parts: list[Numbers] = []
        lengths: list[NDArray[np.float64]] = []
        layers: dict[str, int] = {}
        for batch in batches(
            model, data, limit=self.limit, batch_size=batch_size, progress=progress
        ):
            numbers, length = self._of_batch(model, batch, eps, seed, layers)
            parts.append(numbers)
            lengths.append(length)
        joined = {name: np.concatenate([part[name] for part in parts], -1) for name in parts[0]}
        steps = joined["true"].shape[3]
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            count_of(as_image_set(data), self.limit),
            {
                "kind": list(_KINDS),
                "eps": eps,
                "layer": list(layers),
                "step": np.arange(1, steps + 1),
            },
            **_quantities(joined, np.array(list(layers.values()), dtype=np.float64)),
            distance=(
                np.concatenate(lengths, -1).mean(-1),
                ["kind", "eps"],
                "1",
                "mean L2 norm of the perturbation of an image",
            ),
        )

    def _of_batch(
        self, model: nn.Module, batch: Batch, eps: list[float], seed: int, layers: dict[str, int]
    ) -> tuple[Numbers, NDArray[np.float64]]:
        """Return the sums [kind, eps, layer, step, image] and L2 norms [kind, eps, image]."""
        found, lengths = [], []
        modules = spiking_layers(model)
        _, clean = traces(model, batch, batch.x, seed)
        layers |= {name: each.v[0, 0].numel() for name, each in clean.items()}
        for radius in eps:
            inputs = [batch.x]
            if radius > 0:
                used = at_radius(self.attack, radius)
                adversarial = attacked(model, batch, used, seed)
                streams = batch.streams(seed, "random")
                inputs = [
                    adversarial,
                    as_far_at_random(batch.x, adversarial, used.threat, streams),
                ]
            of_inputs = []
            for x in inputs:
                _, other = traces(model, batch, x, seed)
                of_inputs.append(
                    [each.sums() for each in perturbations(modules, clean, other).values()]
                )
            found.append(of_inputs * (2 // len(inputs)))  # [eps][kind][layer][name]
            lengths.append([norms(x - batch.x) for x in inputs] * (2 // len(inputs)))
        arrays = {
            name: torch.stack(
                [
                    torch.stack([torch.stack([row[name] for row in rows]) for rows in kinds])
                    for kinds in found
                ]
            )
            .transpose(0, 1)
            .cpu()
            .numpy()
            for name in found[0][0][0]
        }
        length = torch.stack([torch.stack(each) for each in lengths]).transpose(0, 1)
        return arrays, length.cpu().numpy()

    def passes(self, samples: int, T: int) -> Passes:
        """Return an attack and two recorded passes an image and radius."""
        return Passes(
            forward=_RECORDED * samples * (2 * self.points + 1),
            gradients=samples * self.points * cost(self.attack),
        )

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the error of the simplified recursion in the last layer."""
        errors = {label: float(m["plain_error"][0, -1, -1]) for label, m in found.items()}
        start = "Error of the simplified recursion in the last spiking layer under attack"
        return f"{start}: {span(errors, whole_percent)}"

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every layer of every network, at the largest radius."""
        return perturbation_table(found)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return the distances over eps, the error by layer and step, and eps over the steps."""
        return perturbation_plots(found, Perturbation.result(found))


def _quantities(sums: Numbers, neurons: NDArray[np.float64]) -> dict[str, Any]:
    """Return the quantities of a measurement from the sums of all images."""
    size = neurons[:, None, None]
    found: dict[str, Any] = {
        "neurons": (neurons.astype(np.int64), ["layer"], "neurons", "neurons of a layer")
    }
    for name, about in _SQUARES.items():
        mean, half = mean_over_images(sums[name] / size)
        found[name] = (mean, _ALONG, "v_th^2", f"{about}; mean over neurons and images")
        found[f"{name}_half"] = (half, _ALONG, "v_th^2", f"half the 95 % interval of {name}")
        mean, half = mean_over_images((sums[name] / size).mean(3))
        found[f"{name}_all"] = (mean, _ALONG[:3], "v_th^2", f"{name}, mean over the steps")
        found[f"{name}_all_half"] = (half, _ALONG[:3], "v_th^2", "half its 95 % interval")
    sum_ = found["plain_all"][0] * neurons * sums["plain"].shape[3]
    about = "MS-MPPD of Eq. 14: the sum of squares of plain over neurons and steps, mean"
    found["ms_mppd"] = (sum_, _ALONG[:3], "v_th^2", f"{about} over images")
    for name, about in _DISTANCES.items():
        mean, half = mean_over_images(sums[name])
        found[name] = (mean, _ALONG, "1", f"{about} over images")
        found[f"{name}_half"] = (half, _ALONG, "1", f"half the 95 % interval of {name}")
    for kind in ("plain", "gated"):
        error, true = sums[f"{kind}_error"], sums["true"]
        by_step, half = root_ratio_over_images(error, true)
        about = f"root of the mean square of {kind} - true over that of true"
        found[f"{kind}_error_by_step"] = (by_step, _ALONG, "share", about)
        found[f"{kind}_error_by_step_half"] = (half, _ALONG, "share", "half its 95 % interval")
        whole, half = root_ratio_over_images(error.sum(3), true.sum(3))
        found[f"{kind}_error"] = (whole, _ALONG[:3], "share", f"{about}, over all steps")
        found[f"{kind}_error_half"] = (half, _ALONG[:3], "share", "half its 95 % interval")
        with np.errstate(invalid="ignore", divide="ignore"):
            lengths = np.sqrt(sums[kind].sum((3, 4)) * true.sum((3, 4)))
            cosine = sums[f"{kind}_product"].sum((3, 4)) / lengths
        found[f"{kind}_cosine"] = (cosine, _ALONG[:3], "1", f"cosine of {kind} and true")
    with np.errstate(invalid="ignore", divide="ignore"):
        rest = np.sqrt(sums["rest"].sum((0, 1, 3, 4)) / sums["true"].sum((0, 1, 3, 4)))
    about = "what Eqs. 7 to 10 leave unexplained, as a share of true; rounding errors for a neuron"
    found["rest"] = (rest, ["layer"], "share", f"{about} of this package")
    return found

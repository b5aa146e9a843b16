"""Analysis ``noise``: flips of spikes by Gaussian noise, predicted and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import nn

from spikeguard.analysis.attacked import traces
from spikeguard.analysis.base import Passes, Section, batches, settings_of
from spikeguard.analysis.image_intervals import HOW, share_quantities
from spikeguard.analysis.layer_lines import ALL
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.membrane import relative_distance
from spikeguard.analysis.noise_charts import noise_plots
from spikeguard.analysis.noise_counts import BANDS, count_flips
from spikeguard.analysis.plots import Plot, Table
from spikeguard.analysis.texts import listed, percent, share_text
from spikeguard.data.images import Data
from spikeguard.neurons.modes import spiking_layers
from spikeguard.system.progress import ProgressCallback

__all__ = ["Noise"]

_PAPER = math.sqrt(0.4)  # deviation of TGO's noise, in membrane units
_WAYS = ("of its step", "of all steps")


@dataclass(frozen=True)
class Noise:
    r"""Compare TGO's flip probability with counted flips, on clean images.

    .. math:: P = \Phi(-|v - v_{th}| / \sigma)

    Args:
        sigma: Standard deviation of the noise, in membrane units, > 0. None: that of the layer,
            whose own draws are then counted; TGO's sqrt(0.4) for a layer without noise.
        limit: Number of images; None for all.

    Raises:
        ValueError: If sigma is not positive.

    Source: TGO (arXiv:2602.20548) Theorem 1 and Eq. 17.
    """

    sigma: float | None = None
    limit: int | None = 128

    name: ClassVar[str] = "noise"
    title: ClassVar[str] = "Spikes that noise flips, predicted and measured"
    section: ClassVar[Section] = "membranes"
    source: ClassVar[str] = "TGO, Theorem 1 and Eq. 17"
    about: ClassVar[str] = (
        "Theorem 1 predicts how often Gaussian noise on a potential v flips its spike. It is "
        "exact for the noise of the potential's own step; noise of earlier steps is then part of "
        "v. By Eq. 17 more noise makes a spike less sensitive to small changes of v only where "
        "|v - v_th| < sigma; elsewhere it makes it more sensitive."
    )

    def __post_init__(self) -> None:
        if self.sigma is not None and not (self.sigma > 0 and math.isfinite(self.sigma)):
            raise ValueError(f"noise: sigma is a standard deviation > 0, got {self.sigma:g}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return predicted and measured flip rates by layer, step and distance.

        Noise of all steps is counted on the layer's recorded current, and NaN where the leak
        factor of a layer is not known.

        Raises:
            NotApplicable: If the network has no spiking layer.
            ValueError: If a potential is NaN, or the limit is below 1.
        """
        own = {name: getattr(layer, "sigma", 0.0) for name, layer in spiking_layers(model).items()}
        found: dict[str, list[dict[str, NDArray[np.float64]]]] = {}
        used: dict[str, float] = {}
        run = batches(model, data, limit=self.limit, batch_size=batch_size, progress=progress)
        for batch in run:
            for name, seen in traces(model, batch, batch.x, seed)[1].items():
                relative_distance(name, seen)  # rejects NaN
                given = self.sigma is not None or seen.noise is None
                used[name] = (self.sigma or _PAPER) if given else float(own[name])
                draws = batch.streams(seed, f"noise of {name}").normal(
                    seen.v.shape, dim=1, device=seen.v.device
                )
                counts = count_flips(seen, used[name], used[name] * draws, given)
                found.setdefault(name, []).append(counts)
        joined = {
            name: {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            for name, parts in found.items()
        }
        return self._measurement(joined, used, seed)

    def _measurement(
        self,
        found: Mapping[str, Mapping[str, NDArray[np.float64]]],
        used: Mapping[str, float],
        seed: int,
    ) -> Measurement:
        layers = [*found, ALL]

        def each(name: str) -> NDArray[np.float64]:
            """Return counts of every image and layer, and of all layers: [images, layers, ...]."""
            columns = np.stack([counts[name] for counts in found.values()], 1)
            return np.append(columns, columns.sum(1, keepdims=True), 1)

        whole, predicted, flips = each("whole"), each("predicted"), each("flips")  # by way, step
        T = whole.shape[-1]
        bands = np.sum([counts["bands"] for counts in found.values()], 0)
        inside = each("close")
        quantities: dict[str, Any] = {}
        for name, part, about in (
            ("predicted", predicted, "mean of Theorem 1's probability"),
            ("measured", flips, "potentials whose spike the noise flips"),
        ):
            total = np.broadcast_to(whole[:, :, None], part.shape)
            axes = ["layers", "way"]
            quantities |= share_quantities(name, part.sum(3), total.sum(3), axes, about, seed)
            last = (part[:, -1], total[:, -1])
            axes = ["way", "step"]
            quantities |= share_quantities(
                f"{name}_by_step", *last, axes, f"{about}; by step", seed
            )
        total = whole.sum(2)
        about = "|v - v_th| < sigma, v without the noise of its step"
        quantities |= share_quantities("within_sigma", inside, total, ["layers"], about, seed)
        about = "flips in a band of |v - v_th| / sigma, noise of the step"
        quantities |= share_quantities("band_rate", bands[:, 2], bands[:, 0], ["band"], about, seed)
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            len(whole),
            {
                "layer": list(found),
                "layers": layers,
                "way": _WAYS,
                "step": np.arange(1, 1 + T),
                "band": BANDS,
            },
            sigma=(list(used.values()), ["layer"], "membrane units", "deviation of the noise"),
            deviation=(
                _quotient(
                    (flips - predicted)[:, :, 0].sum((0, 2)), np.sqrt(each("variance").sum(0))
                ),
                ["layers"],
                "standard errors",
                "flips by the noise of the step, minus their prediction",
            ),
            band_predicted=(
                _quotient(bands[:, 1].sum(0), bands[:, 0].sum(0)),
                ["band"],
                "share",
                "mean of Theorem 1's probability in the band",
            ),
            band_distance=(
                _quotient(bands[:, 3].sum(0), bands[:, 0].sum(0)),
                ["band"],
                "sigma",
                "mean of |v - v_th| / sigma in the band",
            ),
            **quantities,
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return one recorded pass, and draws, replays and counting, as long as 31 passes."""
        return Passes(forward=32 * samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the flip rates, and the share of potentials within sigma of the threshold."""
        texts = {}
        for label, m in found.items():
            at = {"layers": ALL, "way": _WAYS[0]}
            rates = [percent(m.number(name, **at)) for name in ("predicted", "measured")]
            share = percent(m.number("within_sigma", layers=ALL))
            texts[label] = f"{share} (predicted {rates[0]}, measured {rates[1]})"
        return f"Potentials within sigma of the threshold, and flips by noise: {listed(texts)}"

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every layer, and for all layers, of every network."""
        rows = []
        for label, m in found.items():
            for part in m.axes["layers"].tolist():
                sigma = "-" if part == ALL else f"{m.number('sigma', layer=part):.3g}"
                own, whole = ({"layers": part, "way": way} for way in _WAYS)
                rows.append(
                    (
                        *(label, part, sigma, share_text(m, "within_sigma", layers=part)),
                        percent(m.number("predicted", **own)),
                        share_text(m, "measured", **own),
                        f"{m.number('deviation', layers=part):+.1f}".replace("-", "\N{MINUS SIGN}"),
                        percent(m.number("predicted", **whole)),
                        share_text(m, "measured", **whole),
                    )
                )
        head = (
            *("Network", "Layer", "sigma", "|v - v_th| < sigma", "Predicted", "Measured"),
            *("Measured - predicted (s.e.)", "Predicted, all steps", "Measured, all steps"),
        )
        caption = (
            f"{HOW}; s.e.: standard errors of the number of flips, given the potentials. All "
            "steps: noise of every step stays in the membrane, and the prediction is of the "
            "potentials without any noise."
        )
        return Table(head, rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return flip rates by distance, by step, and the shares within sigma by layer."""
        return noise_plots(found, Noise.result(found))


def _quotient(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    part = np.asarray(part, dtype=np.float64)
    found: NDArray[np.float64] = np.full_like(part, np.nan)
    return np.divide(part, whole, out=found, where=whole > 0)

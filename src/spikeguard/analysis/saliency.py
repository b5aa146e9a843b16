"""Analysis ``saliency``: heat maps of the input gradient, and how few pixels hold half of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeguard.analysis.base import (
    Batch,
    NotApplicable,
    Passes,
    Section,
    batches,
    count_of,
    settings_of,
)
from spikeguard.analysis.intervals import mean_interval
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Heat, Plot, Table
from spikeguard.analysis.texts import images_of, interval_text, labelled, percent, percent_interval
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify, frozen
from spikeguard.data.images import Data, as_image_set
from spikeguard.rng import randomness
from spikeguard.system.progress import ProgressCallback

__all__ = ["Saliency", "half_share", "input_gradient"]

_DECADES = 4  # range of the colours; smaller entries have the first colour


def input_gradient(model: nn.Module, batch: Batch, seed: int) -> Tensor:
    r"""Return the gradient of each image's cross-entropy with respect to the image.

    .. math:: g = \partial(-\log p_y) / \partial I

    The network is in evaluation mode, differentiated with its own surrogate and left unchanged.

    Args:
        model: The network.
        batch: Images.
        seed: Seed of the noise, one stream an image.

    Returns:
        Gradients shaped like ``batch.x``.

    Source: TGO (arXiv:2602.20548) Eqs. 43 to 45.
    """
    x = batch.x.detach().clone().requires_grad_()
    noise = randomness(model, batch.streams(seed, "noise"))
    with frozen(model), noise, torch.enable_grad():
        loss = cross_entropy(classify(model, x, batch.y), batch.y).sum()
    (found,) = torch.autograd.grad(loss, x)
    return found


def half_share(gradient: Tensor) -> Tensor:
    """Return the smallest share of pixels that hold half of the gradient's absolute sum.

    A pixel's entry is the sum of |g| over its channels. A share of 1/2 is a gradient of equal size
    everywhere, 1 / (H W) one of a single pixel.

    Args:
        gradient: Gradients [B, C, H, W].

    Returns:
        Shares [B], float64; NaN for a gradient of zeros.
    """
    size = gradient.double().abs().sum(1).flatten(1)
    part = size.sort(1, descending=True).values.cumsum(1)
    whole = part[:, -1:]
    needed = (part < whole / 2 * (1 - 1e-12)).sum(1) + 1
    return torch.where(whole[:, 0] > 0, needed / size.shape[1], torch.nan)


@dataclass(frozen=True)
class Saliency:
    """Map the gradient of the loss over the pixels of clean images, with the own surrogate.

    Args:
        limit: Number of images behind the shares, the first ones; None for all.
        show: Number of images that are shown, the first ones.

    Raises:
        ValueError: If ``show`` is below 1.

    Source: TGO (arXiv:2602.20548) Fig. 5, Eqs. 43 to 45.
    """

    limit: int | None = 128
    show: int = 6

    name: ClassVar[str] = "saliency"
    title: ClassVar[str] = "The gradient over the image"
    section: ClassVar[Section] = "gradients"
    source: ClassVar[str] = "TGO, Fig. 5, Eqs. 43 to 45"
    about: ClassVar[str] = (
        "Absolute gradient of the loss at every pixel, summed over channels, on one logarithmic "
        "scale for all networks; pixels whose gradient is exactly 0 are left empty. Few bright "
        "pixels are a sparse gradient; dark everywhere is a small one."
    )

    def __post_init__(self) -> None:
        if self.show < 1:
            raise ValueError(f"saliency: show is a number of images >= 1, got {self.show}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return maps of the shown images, and for every image norm, half share and zeros."""
        images = as_image_set(data)
        if images.batch(slice(1))[0].ndim < 4:
            raise NotApplicable("saliency needs images [N, C, H, W], these inputs are flat vectors")
        n = count_of(images, self.limit)
        shown, seen, rows = min(n, self.show), [], []
        for batch in batches(
            model, data, limit=n, batch_size=batch_size, progress=progress, what="gradients"
        ):
            grad = input_gradient(model, batch, seed)
            grad = grad.flatten(1, -3)  # the frames of events count as channels
            size = grad.abs().sum(1)
            zeros = (size == 0).double().mean((1, 2))
            norms = grad.double().flatten(1).norm(dim=1)
            rows.append(torch.stack([norms, half_share(grad), zeros]).cpu())
            seen.append(size[: max(0, shown - int(batch.index[0]))].cpu())
        norm, half, zero = torch.cat(rows, 1).numpy()
        x, y = images.batch(slice(shown))
        pixels = x.mean(1)
        if x.ndim == 5:  # events of both polarities, summed over time
            pixels = x.sum((1, 2))
            pixels = pixels / pixels.amax((1, 2), keepdim=True).clamp_min(1e-9)
        maps = torch.cat(seen).numpy()
        height, width = maps.shape[1:]
        axes = {
            "image": np.arange(n),
            "shown": np.arange(shown),
            "row": np.arange(height),
            "column": np.arange(width),
        }
        grid = ["shown", "row", "column"]
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            n,
            axes,
            gradient=(maps, grid, "loss a pixel unit", "|gradient| summed over channels"),
            pixels=(pixels.numpy(), grid, "1", "the image, mean over channels"),
            label=(y.numpy(), ["shown"], "class", "true class"),
            norm=(norm, ["image"], "1", "L2 norm of the gradient"),
            half=(
                half,
                ["image"],
                "share",
                "pixels that hold half of the gradient; NaN: no gradient",
            ),
            zeros=(zero, ["image"], "share", "pixels whose gradient is exactly 0"),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return one gradient an image."""
        return Passes(gradients=samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the share of pixels that hold half of the gradient."""
        texts = {label: percent(_half(m)[0]) for label, m in found.items()}
        return "Half of the gradient is in this share of the pixels: " + labelled(texts)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every network."""
        rows = []
        for label, m in found.items():
            rows.append(
                (
                    label,
                    percent_interval(*_half(m)),
                    interval_text(*mean_interval(m["norm"])),
                    percent(float(m["zeros"].mean())),
                    str(int(np.isnan(m["half"]).sum())),
                )
            )
        first = next(iter(found.values()))
        labels = ", ".join(str(label) for label in first["label"])
        caption = (
            f"The first {images_of(found)} clean test images, own surrogate, mean with 95 % "
            f"interval. A gradient of equal size at all pixels gives 50 %. Shown: images 0 to "
            f"{len(first['label']) - 1}, classes {labels}."
        )
        head = ("Network", "Pixels with half of it", "Norm", "Pixels at 0", "Images without any")
        return Table(head, rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return the images in a row, and below them the maps of each network in the same order."""
        first = next(iter(found.values()))
        top = max(float(m["gradient"].max()) for m in found.values())
        high = math.log10(top) if top > 0 else 0.0
        labels = ", ".join(str(label) for label in first["label"])
        title = f"The images: classes {labels}"
        plots = [_row("images", title, "The images, in grey.", first["pixels"], grey=True)]
        for place, (label, m) in enumerate(found.items()):
            with np.errstate(divide="ignore"):
                size = np.log10(m["gradient"])
            size[np.isneginf(size)] = np.nan
            words = f"{label}: half of the gradient is in {percent(_half(m)[0])} of the pixels."
            limits = (high - _DECADES, high)
            name = f"map-{place}"
            plots.append(_row(name, "Gradient", words, size, limits=limits, network=label))
        return plots


def _half(m: Measurement) -> tuple[float, float, float]:
    """Return the mean share of pixels that hold half of the gradient, with its interval."""
    return mean_interval(m["half"])


def _row(
    name: str,
    title: str,
    words: str,
    grids: NDArray[Any],
    *,
    limits: tuple[float, float] = (0, 1),
    network: str = "",
    grey: bool = False,
) -> Plot:
    """Return grids [images, rows, columns] side by side, one empty column between two."""
    grids = np.asarray(grids, dtype=np.float64).round(3)
    gap = np.full((len(grids), grids.shape[1], 1), np.nan)
    whole = np.concatenate(list(np.concatenate([grids, gap], 2)), 1)[:, :-1]
    x, y = np.arange(whole.shape[1]), np.arange(whole.shape[0])
    unit = "" if grey else "log10 |gradient|"
    heat = Heat(whole, x, y, unit, *limits, image=True, grey=grey)
    return Plot(name, title, words, [heat], network=network, width="full", height=190)

"""Analysis ``examples``: clean and adversarial inputs side by side, and what the attack changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeguard.analysis.attacked import attacked, recorded
from spikeguard.analysis.base import (
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
from spikeguard.attacks.base import Attack, cost
from spikeguard.attacks.model_access import classify
from spikeguard.data.images import Data, as_image_set
from spikeguard.system.progress import ProgressCallback

__all__ = ["Examples"]

_LEVELS = 8  # shades of a polarity above "no event"
_OFF, _ON = (0, 96, 192), (208, 64, 0)  # colours of the largest sum of one polarity
_EMPTY = 253  # almost white: a cell without events


@dataclass(frozen=True)
class Examples:
    """Draw inputs before and after an attack, and count the values that it changed.

    Event frames are summed over time. Those of two channels, OFF and ON, are drawn in two colours;
    others are summed over their channels, too, and drawn in grey, as images are.

    Args:
        attack: The attack; it states its threat set.
        limit: Number of images behind the numbers; None for all.
        show: Number of inputs that are drawn: the first ones, misclassified under attack or not.

    Raises:
        ValueError: If ``show`` is below 1.
    """

    attack: Attack
    limit: int | None = 64
    show: int = 6

    name: ClassVar[str] = "examples"
    title: ClassVar[str] = "Inputs before and after the attack"
    section: ClassVar[Section] = "gradients"
    source: ClassVar[str] = "SpikeGuard's own"
    about: ClassVar[str] = (
        "The first inputs, clean and under attack, and the size of the change. Events are summed "
        "over time: OFF events in blue, ON events in orange, both in one cell dark. A value counts "
        "as changed however small the change is."
    )

    def __post_init__(self) -> None:
        if self.show < 1:
            raise ValueError(f"examples: show is a number of inputs >= 1, got {self.show}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return pictures of the shown inputs, and for every input what the attack changed.

        Raises:
            NotApplicable: If the inputs are flat vectors.
        """
        images = as_image_set(data)
        if images.batch(slice(1))[0].ndim < 4:
            raise NotApplicable("examples draws images or event frames, these are flat vectors")
        n, rows = count_of(images, self.limit), []
        drawn: list[list[Tensor]] = [[], [], []]
        for batch in batches(
            model, data, limit=n, batch_size=batch_size, progress=progress, what="examples"
        ):
            x = attacked(model, batch, self.attack, seed)
            with recorded(model, batch, seed):
                clean = classify(model, batch.x, batch.y).argmax(1)
            with recorded(model, batch, seed):
                found = classify(model, x, batch.y).argmax(1)
            change = (x - batch.x).abs()
            numbers = [
                clean == batch.y,
                found == batch.y,
                (change > 0).flatten(1).double().mean(1),
                self.attack.threat.distance(x, batch.x),
                clean,
                found,
            ]
            rows.append(torch.stack([each.double() for each in numbers]).cpu())
            for part, shown in zip(drawn, (batch.x, x, change), strict=True):
                part.append(_planes(shown)[: max(0, self.show - int(batch.index[0]))].cpu())
        right, kept, changed, distance, seen, seen_after = torch.cat(rows, 1).numpy()
        before, after, differs = (torch.cat(part).double().numpy() for part in drawn)
        frames = bool(images.space.temporal)
        axes: dict[str, Any] = {
            "image": np.arange(n),
            "shown": np.arange(len(before)),
            "plane": ["OFF", "ON"] if frames and before.shape[1] == 2 else ["all"],
            "row": np.arange(before.shape[2]),
            "column": np.arange(before.shape[3]),
        }
        grid, one = ["shown", "plane", "row", "column"], ["image"]
        summed = "events summed over time" + ("" if len(axes["plane"]) == 2 else " and channels")
        what = summed if frames else "the image, mean over channels"
        labels = images.batch(slice(len(before)))[1].numpy()
        return Measurement.of(
            self.name,
            settings_of(self, seed),
            n,
            axes,
            before=(before, grid, "1", f"clean: {what}"),
            after=(after, grid, "1", f"under attack: {what}"),
            change=(differs, grid, "1", f"absolute change: {what}"),
            label=(labels, ["shown"], "class", "true class"),
            clean_class=(seen[: self.show], ["shown"], "class", "class of the clean input"),
            attacked_class=(seen_after[: self.show], ["shown"], "class", "class under attack"),
            right=(right, one, "share", "classified correctly without an attack"),
            kept=(kept, one, "share", "classified correctly under attack"),
            changed=(changed, one, "share", "values of the input that differ from the clean ones"),
            distance=(distance, one, "1", "distance in the norm of the threat set"),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return the attack and two passes for every image."""
        return Passes(forward=2 * samples, gradients=cost(self.attack) * samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the share of values that the attack changes."""
        texts = {label: percent(float(m["changed"].mean())) for label, m in found.items()}
        return "Values of an input that the attack changes: " + labelled(texts)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every network."""
        rows = [
            (
                label,
                percent(float(m["right"].mean())),
                percent(float(m["kept"].mean())),
                percent_interval(*mean_interval(m["changed"])),
                interval_text(*mean_interval(m["distance"])),
            )
            for label, m in found.items()
        ]
        caption = (
            f"The first {images_of(found)} test images, mean with 95 % interval. The distance is "
            "in the norm of the attack's threat set."
        )
        head = ("Network", "Correct, clean", "Correct, attacked", "Values changed", "Distance")
        return Table(head, rows, caption)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return three rows of pictures a network: clean, attacked, and the change."""
        plots = []
        for place, (label, m) in enumerate(found.items()):
            names = (
                ("before", "Clean", f"classes {_classes(m, 'clean_class')}"),
                ("after", "Under attack", f"classes {_classes(m, 'attacked_class')}"),
                ("change", "Absolute change", f"true classes {_classes(m, 'label')}"),
            )
            top = max(float(m["before"].max()), float(m["after"].max()), 1e-9)
            for part, title, classes in names:
                high = top if part != "change" else max(float(m["change"].max()), 1e-9)
                words = f"{label}: {title.lower()}, {classes}."
                heat = _heat(m[part], high)
                name = f"{part}-{place}"
                title = f"{title}: {classes}"
                plots.append(
                    Plot(name, title, words, [heat], network=label, width="full", height=190)
                )
        return plots


def _classes(m: Measurement, name: str) -> str:
    return ", ".join(f"{value:.0f}" for value in m[name])


def _planes(x: Tensor) -> Tensor:
    """Return inputs as one plane [B, 1, H, W], frames of two polarities as two [B, 2, H, W]."""
    if x.ndim == 4:
        return x.mean(1, keepdim=True)
    frames = x.sum(1)
    return frames if frames.shape[1] == 2 else frames.sum(1, keepdim=True)


def _heat(pictures: NDArray[Any], high: float) -> Heat:
    """Return pictures [shown, planes, rows, columns] side by side."""
    gap = np.full((len(pictures), pictures.shape[1], pictures.shape[2], 1), np.nan)
    joined = np.concatenate(list(np.concatenate([pictures, gap], 3)), 2)[:, :, :-1]
    x, y = np.arange(joined.shape[2]), np.arange(joined.shape[1])
    if len(joined) == 1:
        return Heat((joined[0] / high).round(3), x, y, "", 0, 1, image=True, grey=True)
    off, on = np.round(_LEVELS * joined / high).clip(0, _LEVELS)
    return Heat(off * (_LEVELS + 1) + on, x, y, "", image=True, colours=_COLOURS)


def _mixed(off: int, on: int) -> str:
    """Return the colour of a cell with shades of both polarities: two inks, one over the other."""
    shares = [off / _LEVELS, on / _LEVELS]
    parts = []
    for channel in range(3):
        value = _EMPTY / 255.0
        for share, ink in zip(shares, (_OFF, _ON), strict=True):
            value *= 1 - share * (1 - ink[channel] / 255)
        parts.append(round(255 * value))
    return "#" + "".join(f"{part:02x}" for part in parts)


_COLOURS = tuple(_mixed(off, on) for off in range(_LEVELS + 1) for on in range(_LEVELS + 1))

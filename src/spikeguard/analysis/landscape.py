"""Analysis ``landscape``: the loss around images, along the gradient and a random direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from spikeguard.analysis import landscape_charts as charts
from spikeguard.analysis.attacked import attacked, recorded
from spikeguard.analysis.base import (
    Batch,
    NotApplicable,
    Passes,
    Section,
    batches,
    count_of,
    settings_of,
)
from spikeguard.analysis.directions import ascent, orthogonal
from spikeguard.analysis.landscape_numbers import (
    PLACES,
    coordinates,
    landscape_measurement,
    require_grid,
)
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Table
from spikeguard.attacks.base import Attack, cost
from spikeguard.attacks.gradients.base import BACKPROP, Gradient, gradient_cost
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify, frozen
from spikeguard.attacks.threat import Threat, peak_of
from spikeguard.attacks.threat_names import is_event_norm
from spikeguard.data.images import Data, as_image_set
from spikeguard.rng import randomness
from spikeguard.system.progress import ProgressCallback

__all__ = ["Landscape", "Plane", "input_plane"]

_SLACK = 1e-4  # rounding of a distance, as a share of eps


@dataclass(frozen=True, eq=False)
class Plane:
    """Losses on a grid in the plane of two directions, image by image.

    Attributes:
        losses: Cross-entropy [B, along, across].
        right: Whether the prediction is correct [B, along, across].
        distance: Distance from the clean image in the norm of the threat set [B, along, across].
        norm: Euclidean norm of the gradient at the centre [B].
    """

    losses: Tensor
    right: Tensor
    distance: Tensor
    norm: Tensor


@dataclass(frozen=True)
class Landscape:
    r"""Measure loss and accuracy on a grid around clean and attacked images.

    .. math:: L(\alpha, \beta) = \ell\big(f(\mathrm{clip}(x + \epsilon\,(\alpha d_1
              + \beta d_2))), y\big)

    Both directions have norm 1 in the norm of the threat set: under Linf, d1 is the sign of the
    gradient, so that (1, 0) is FGSM, and d2 has random signs. Around attacked images the gradient
    is that at the attacked image. A stochastic network has the same noise at every point.

    Args:
        attack: The attack; its threat set gives eps and norm.
        gradient: How the loss is differentiated; ``surrogate=NAME`` on the command line.
        points: Grid points along each direction, odd, >= 3.
        span: Largest coordinate, in units of eps, > 0.
        limit: Number of images; None for all.

    Raises:
        ValueError: If points or span is out of range.

    Source: TGO paper, Fig. 4 and Eqs. 46 to 53, which describe the plane in weight space; see
        ``WeightLandscape``.
    """

    attack: Attack
    gradient: Gradient = BACKPROP
    points: int = 17
    span: float = 2.0
    limit: int | None = 64

    name: ClassVar[str] = "landscape"
    title: ClassVar[str] = "Loss around images"
    section: ClassVar[Section] = "landscape"
    source: ClassVar[str] = "TGO paper, Fig. 4, Eqs. 46 to 53, in input space"
    about: ClassVar[str] = (
        "Mean loss on a plane through the image: along the gradient (its sign under Linf, so 1 is "
        "FGSM) and along a random orthogonal direction of the same norm, in units of eps. "
        "A rough line along the gradient misleads attacks of few steps. Losses above the attack's "
        "around the clean image show that the attack did not find the worst point; a stochastic "
        "network has one noise draw, the same at every point. Drag a surface, or press Shift and "
        "an arrow key, to turn it."
    )

    def __post_init__(self) -> None:
        require_grid(type(self).__name__, self.points, self.span)

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return mean loss and accuracy on the grid, and roughness and peaks of every image.

        Raises:
            NotApplicable: If the threat set is one on events, which has no radius in pixel units.
        """
        norm_of_set = self.attack.threat.norm
        if is_event_norm(norm_of_set):
            raise NotApplicable(
                f"landscape needs a radius in pixel units, the threat set {norm_of_set} has none; "
                "give one of linf, l2 or l1"
            )
        axis = coordinates(self.points, self.span)
        planes: dict[str, list[Plane]] = {place: [] for place in PLACES}
        total, done = 2 * count_of(as_image_set(data), self.limit), 0
        for batch in batches(model, data, limit=self.limit, batch_size=batch_size):
            for place in PLACES:
                clean = place == "clean"
                centre = batch.x if clean else attacked(model, batch, self.attack, seed)
                plane = input_plane(
                    model,
                    batch,
                    centre,
                    axis,
                    threat=self.attack.threat,
                    gradient=self.gradient,
                    seed=seed,
                    rows=batch_size,
                )
                planes[place].append(plane)
                done += len(batch.y)
                if progress is not None:
                    progress(done, total, place)
        losses, right, far, norm = (
            np.stack([_joined(planes[place], name) for place in PLACES])
            for name in ("losses", "right", "distance", "norm")
        )
        inside = far[0] <= self.attack.threat.eps * (1 + _SLACK)
        highest = np.where(inside, losses[0], -np.inf).max((1, 2))
        return landscape_measurement(
            self.name,
            settings_of(self, seed),
            axis,
            losses,
            right,
            "eps",
            highest=(
                highest,
                ("image",),
                "nats",
                "largest loss inside the threat set on the grid around the clean image",
            ),
            gradient=(
                norm,
                ("place", "image"),
                "nats a pixel",
                "L2 norm of the gradient at the centre",
            ),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return a forward pass for every point, two gradients and the attack for every image."""
        gradients = cost(self.attack) + 2 * gradient_cost(self.gradient)
        return Passes(2 * self.points**2 * samples, gradients * samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the roughness around attacked images, and how often the grid beats the attack."""
        return charts.result(found)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return two rows a network: around clean and around attacked images."""
        return charts.table(found)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return lines through the centre, contours, and surfaces under attack."""
        return charts.plots(found)


def input_plane(
    model: nn.Module,
    batch: Batch,
    centre: Tensor,
    axis: NDArray[np.float64],
    *,
    threat: Threat,
    gradient: Gradient = BACKPROP,
    seed: int = 0,
    rows: int = 64,
) -> Plane:
    """Measure the loss on a plane through images, along the gradient and a random direction.

    Args:
        model: The network; left unchanged.
        batch: Clean images and labels.
        centre: Centres of the planes [B, ...]: the clean images or others near them.
        axis: Coordinates along both directions, in units of eps [points].
        threat: Threat set around the clean images.
        gradient: How the loss is differentiated.
        seed: Seed of the network's noise and of the random directions.
        rows: Inputs of one forward pass; several points share one where images are few.
    """
    with frozen(model), randomness(model, batch.streams(seed, "noise")), torch.no_grad():
        _, grad = gradient(model, centre, batch.y, cross_entropy)
    first = ascent(threat, grad)
    second = orthogonal(threat, first, batch.streams(seed, "landscape"))
    pairs = torch.cartesian_prod(*[torch.as_tensor(axis, dtype=centre.dtype)] * 2)
    losses, right, far = [], [], []
    for some in torch.split(pairs.to(centre.device), max(1, rows // len(batch.y))):
        along, across = (c.view(-1, *[1] * centre.ndim) for c in some.unbind(1))
        step = threat.eps * (along * first + across * second)
        x = (centre + step).clamp(0, peak_of(threat)).flatten(0, 1)
        many = Batch(batch.index.repeat(len(some)), x, batch.y.repeat(len(some)))
        with recorded(model, many, seed):
            logits = classify(model, x, many.y)
        losses.append(cross_entropy(logits, many.y).view(len(some), -1))
        right.append((logits.argmax(1) == many.y).view(len(some), -1))
        clean = batch.x.repeat(len(some), *[1] * (batch.x.ndim - 1))
        far.append(threat.distance(x, clean).view(len(some), -1))
    grid = (len(batch.y), len(axis), len(axis))
    parts = [torch.cat(each).T.reshape(grid) for each in (losses, right, far)]
    return Plane(parts[0], parts[1], parts[2], grad.flatten(1).norm(dim=1))


def _joined(planes: list[Plane], name: str) -> NDArray[np.generic]:
    return torch.cat([getattr(plane, name) for plane in planes]).cpu().numpy()

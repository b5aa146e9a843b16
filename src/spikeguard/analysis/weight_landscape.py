"""Analysis ``weight-landscape``: the loss around the weights of a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from spikeguard.analysis import landscape_charts as charts
from spikeguard.analysis.attacked import attacked, recorded
from spikeguard.analysis.base import (
    Batch,
    NotApplicable,
    Passes,
    Section,
    batches,
    settings_of,
)
from spikeguard.analysis.directions import (
    filter_normalised,
    length,
    orthogonal_weights,
    scaled_to,
    weights_of,
)
from spikeguard.analysis.landscape_charts import CONTOURS
from spikeguard.analysis.landscape_numbers import (
    PLACES,
    coordinates,
    landscape_measurement,
    require_grid,
)
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Table
from spikeguard.attacks.base import Attack, cost
from spikeguard.attacks.gradients.base import BACKPROP, Backprop, Gradient, SwapSurrogate
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify, evaluating
from spikeguard.data.images import Data
from spikeguard.neurons.modes import backward_mode, spiking_layers
from spikeguard.rng import randomness
from spikeguard.system.progress import ProgressCallback
from spikeguard.system.swapping import restored, swapped

__all__ = ["WeightLandscape", "moved_weights", "weight_directions", "weight_gradient"]


@dataclass(frozen=True)
class WeightLandscape:
    r"""Measure loss and accuracy on a grid around the weights, on clean and on attacked images.

    .. math:: L(\alpha, \beta) = \frac1N \sum_i \ell\big(f(x_i;\ w + \alpha d_1 + \beta d_2),
              y_i\big)

    d1 is the gradient of the mean loss, d2 normal noise orthogonal to it. With ``filter_norm``
    every filter of both has the norm of the filter of w, so that networks whose filters differ by
    factors which batch normalisation cancels have the same landscape. Without it both have the norm
    of w as a whole: the plane of the paper with coordinates relative to ||w||.

    Only weights of two or more dimensions move. Batch normalisation keeps the running statistics
    of the trained network. Attacked images are those of the trained weights.

    Args:
        attack: The attack on the images.
        gradient: The own surrogates, or ``surrogate=NAME``.
        filter_norm: Scale filter by filter.
        points: Grid points along each direction, odd, >= 3.
        span: Largest coordinate, relative to the norm of the weights, > 0.
        limit: Number of images; None for all.

    Raises:
        ValueError: If points or span is out of range, or the gradient is a rule for inputs.
        NotApplicable: At a call, if the network has no weights of two or more dimensions.

    Source: TGO paper, Eqs. 46 to 53; filter normalisation: Li et al., NeurIPS 2018
        (arXiv:1712.09913).
    """

    attack: Attack
    gradient: Gradient = BACKPROP
    filter_norm: bool = True
    points: int = 17
    span: float = 0.2
    limit: int | None = 64

    name: ClassVar[str] = "weight-landscape"
    title: ClassVar[str] = "Loss around the weights"
    section: ClassVar[Section] = "landscape"
    source: ClassVar[str] = "TGO paper, Fig. 4, Eqs. 46 to 53; Li et al., arXiv:1712.09913"
    about: ClassVar[str] = (
        "Mean loss while the weights move along their gradient and a random orthogonal direction; "
        "0.1 is a change of every filter by 10 % of its norm (of the whole without filter_norm). "
        "Batch normalisation keeps the statistics of training, and the attacked images are those "
        "of the trained weights. A flat valley says that small changes of the weights cost little; "
        "it says nothing about changes of the image."
    )

    def __post_init__(self) -> None:
        require_grid(type(self).__name__, self.points, self.span)
        if not isinstance(self.gradient, Backprop | SwapSurrogate):
            raise ValueError(
                f"WeightLandscape: {type(self.gradient).__name__} differentiates inputs, not "
                "weights; write surrogate=NAME, or leave it out."
            )

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return mean loss and accuracy on the grid, and roughness and peaks of every image."""
        if not weights_of(model):
            raise NotApplicable("the network has no weights of two or more dimensions.")
        axis = coordinates(self.points, self.span)
        clean = list(batches(model, data, limit=self.limit, batch_size=batch_size))
        shown = {
            "clean": clean,
            "attacked": [Batch(b.index, attacked(model, b, self.attack, seed), b.y) for b in clean],
        }
        found, norms = [], []
        for number, place in enumerate(PLACES):
            grad = weight_gradient(model, shown[place], gradient=self.gradient, seed=seed)
            norms.append(length(grad))
            first, second = weight_directions(model, grad, seed, filter_norm=self.filter_norm)
            rows = []
            for along in axis:
                for across in axis:
                    with moved_weights(model, (along, first), (across, second)):
                        rows.append(_outcomes(model, shown[place], seed))
                if progress is not None:
                    done = number * len(axis) + len(rows) // len(axis)
                    progress(done, len(PLACES) * len(axis), place)
            found.append(torch.stack(rows, 2).view(2, -1, len(axis), len(axis)))
        losses, right = torch.stack(found, 1).cpu().numpy()
        return landscape_measurement(
            self.name,
            settings_of(self, seed),
            axis,
            losses,
            right > 0,
            "norms of the weights",
            gradient=(norms, ("place",), "nats", "L2 norm of the gradient of the mean loss"),
        )

    def passes(self, samples: int, T: int) -> Passes:
        """Return a forward pass for every point, two gradients and the attack for every image."""
        return Passes(2 * self.points**2 * samples, (cost(self.attack) + 2) * samples)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the accuracy over the grid on attacked images."""
        return charts.weight_result(found)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return two rows a network: on clean and on attacked images."""
        return charts.table(found)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return lines through the centre, contours, and surfaces under attack."""
        return charts.plots(found, contours=CONTOURS[:2])


def weight_gradient(
    model: nn.Module, images: Sequence[Batch], *, gradient: Gradient = BACKPROP, seed: int = 0
) -> dict[str, Tensor]:
    """Return the gradient of the mean cross-entropy with respect to the weights, in float64.

    Args:
        model: The network; used in evaluation mode and left unchanged.
        images: Batches of images.
        gradient: ``Backprop()``, or a ``SwapSurrogate`` for another surrogate.
        seed: Seed of the network's noise.

    Returns:
        Gradients by the names of :func:`spikeguard.analysis.directions.weights_of`.
    """
    weights = weights_of(model)
    total = {name: torch.zeros_like(w, dtype=torch.float64) for name, w in weights.items()}
    n = sum(len(batch.y) for batch in images)
    with swapped(weights.values(), "requires_grad", True), evaluating(model):
        for batch in images:
            noise = randomness(model, batch.streams(seed, "noise"))
            with noise, _differentiated(model, gradient), torch.enable_grad():
                loss = cross_entropy(classify(model, batch.x, batch.y), batch.y).sum()
                grads = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, grad in zip(weights, grads, strict=True):
                if grad is not None:
                    total[name] += grad.double() / n
    return total


def _differentiated(model: nn.Module, gradient: Gradient) -> AbstractContextManager[None]:
    """Return the context of backpropagation with the surrogate of a gradient."""
    if not isinstance(gradient, SwapSurrogate):
        return nullcontext()
    if not spiking_layers(model):
        raise NotApplicable("the network has no spiking layer whose surrogate could be replaced.")
    return backward_mode(model, gradient.surrogate)


def weight_directions(
    model: nn.Module, grad: Mapping[str, Tensor], seed: int, *, filter_norm: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the direction of a gradient and a random one orthogonal to it.

    Args:
        model: The network.
        grad: See :func:`weight_gradient`.
        seed: Seed of the random direction.
        filter_norm: Scale every filter to the norm of the network's; else the whole.
    """
    weights = weights_of(model)
    noise = orthogonal_weights(grad, seed, by_filter=filter_norm)
    scale = filter_normalised if filter_norm else scaled_to
    return scale(grad, weights), scale(noise, weights)


@contextmanager
def moved_weights(model: nn.Module, *moves: tuple[float, Mapping[str, Tensor]]) -> Iterator[None]:
    """Add directions, each times a factor, to the weights inside the block.

    Afterwards, also after an exception, the weights are the tensors they were before.
    """
    weights = weights_of(model)
    with restored(weights.values(), "data"):
        for name, weight in weights.items():
            step = sum(factor * direction[name] for factor, direction in moves)
            weight.data = (weight.data.double() + step).to(weight.dtype)
        yield


def _outcomes(model: nn.Module, images: Sequence[Batch], seed: int) -> Tensor:
    """Return losses and whether predictions are correct [2, N]."""
    found = []
    for batch in images:
        with recorded(model, batch, seed):
            logits = classify(model, batch.x, batch.y)
        right = logits.argmax(1) == batch.y
        found.append(torch.stack([cross_entropy(logits, batch.y), right.float()]))
    return torch.cat(found, 1)

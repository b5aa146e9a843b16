"""Theorems on trained networks: the part of theory.py that needs the networks of the demo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from theory_closed_forms import SHIFT, SIGMA, Table
from torch import Tensor, nn

from spikeguard.analysis.theory import (
    flip_probability,
    shift_flip_probability,
    vulnerability_bound,
    vulnerability_ratio,
)
from spikeguard.attacks.model_access import evaluating, frozen
from spikeguard.neurons.modes import record
from spikeguard.rng import SampleStreams, key, randomness, stream
from spikeguard.runs.run import Run
from spikeguard.system.intervals import Z, wilson

NETWORKS = ("vanilla", "tgo", "at", "at-tgo")
RADII = (0.1, 0.01)
ENDS = (0.0, 0.2, 0.632, 1.264, math.inf)  # distances from the threshold, in membrane units


def interval(values: Tensor, scale: float = 1.0) -> str:
    """Return the mean over images with its 95 % normal interval."""
    mean, half = float(values.double().mean()), Z * float(values.double().std())
    half /= math.sqrt(len(values))
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(scale * v for v in (mean, mean - half, mean + half)))


def share(yes: Tensor) -> str:
    """Return a share of images in % with its 95 % Wilson interval."""
    low, high = wilson(int(yes.sum()), len(yes))
    return f"{100 * float(yes.double().mean()):.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def distances(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return v - v_th of every neuron and step [B, K], without and with the noise of that step."""
    streams = SampleStreams(key(0, "theory"), torch.arange(len(x)))
    with evaluating(model), torch.no_grad(), record(model) as trace, randomness(model, streams):
        model(x)
    before, after = (
        torch.cat([(v - v_th).transpose(0, 1).flatten(1) for v, v_th in potentials], 1)
        for potentials in (
            [(each.v_before_noise, each.v_th) for each in trace.values()],
            [(each.v, each.v_th) for each in trace.values()],
        )
    )
    return before, after


def flip_rows(before: Tensor, after: Tensor) -> list[list[str]]:
    """TGO Theorem 1: predicted and measured flips under the network's own noise, by distance."""
    flips, rows = (before >= 0) != (after >= 0), []
    for low, high in pairwise(ENDS):
        inside = (before.abs() >= low) & (before.abs() < high)
        counts, flipped = inside.sum(1), (flips & inside).sum(1)
        mean = float(flipped.sum() / counts.sum())
        # the interval of a ratio of two sums over images, by the delta method
        spread = float((flipped - mean * counts).double().std())
        half = Z * spread * math.sqrt(len(before)) / float(counts.sum())
        predicted = float((flip_probability(before, SIGMA) * inside).sum() / counts.sum())
        measured = "{:.2f} [{:.2f}, {:.2f}]".format(
            *(100 * value for value in (mean, mean - half, mean + half))
        )
        label = f"{low:g} to {high:g}" if high < math.inf else f"above {low:g}"
        rows.append([label, f"{100 * predicted:.2f}", measured])
    return rows


def shift_cells(before: Tensor) -> list[str]:
    """TGO Eq. 17: the share that meets its condition, and spikes that a shift of all changes."""

    def changed(shift: float, sigma: float) -> Tensor:
        both = [shift_flip_probability(before, each, sigma) for each in (-shift, shift)]
        return torch.stack(both).mean((0, 2))

    met = (before.abs() < SIGMA).double().mean(1)
    without, noisy = changed(SHIFT, 0.0), changed(SHIFT, SIGMA)
    larger = changed(3 * SHIFT, SIGMA) - changed(3 * SHIFT, 0.0)
    return [interval(each, 100) for each in (met, without, noisy, noisy - without, larger)]


def own_logit(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the logit of the true class [B], one draw of a noisy network."""
    streams = SampleStreams(key(0, "theory"), torch.arange(len(x)))
    with frozen(model), randomness(model, streams):
        logits: Tensor = model(x)
    return logits.gather(1, y[:, None])[:, 0]


def surrogate_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the true class's logit with respect to the image."""
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        (found,) = torch.autograd.grad(own_logit(model, x, y).sum(), x)
    return found


def affine_cells(model: nn.Module, x: Tensor, gradient: Tensor) -> list[str]:
    """TGO Theorem 2: images whose logits a tiny step leaves as they are, and R_adv at least."""
    with evaluating(model), torch.no_grad():
        clean = model(x)
        side = torch.randn(x.shape, generator=stream(0, "step")).sign()
        still = (model(x + 1e-6 * side) == clean).all(1)
        ends = [model(x + step * gradient.sign()) for step in (-0.1, 0.1)]
    changes = torch.stack([(end - clean).square().sum(1) for end in ends])
    return [share(still), interval(changes.amax(0))]


def zero_cells(gradient: Tensor) -> list[str]:
    """gradient-trail Theorem 1: zeros, and both sides to first order."""
    zeros = (gradient == 0).flatten(1)
    some = gradient[~zeros.all(1)]
    return [
        interval(zeros.double().mean(1), 100),
        share(zeros.all(1)),
        str(int((zeros.any(1) & ~zeros.all(1)).sum())),
        interval(vulnerability_ratio(some)),
        f"{float(vulnerability_bound(some).min()):g} to {float(vulnerability_bound(some).max()):g}",
    ]


@torch.no_grad()
def true_cells(
    model: nn.Module, x: Tensor, y: Tensor, gradient: Tensor, eps: float, draws: int = 200
) -> list[str]:
    """gradient-trail Theorem 1 on the network itself, which has no noise.

    The random vulnerability is a mean over uniform draws. The adversarial one is the largest change
    found, among these draws, corners of the cube and the gradient's: a lower bound. An image counts
    as above the bound only if it is with the mean plus three standard errors.
    """
    clean, generator = own_logit(model, x, y), stream(0, "cube")

    def change(side: Tensor) -> Tensor:
        return (own_logit(model, x + eps * side, y) - clean).square().double()

    inside = torch.stack(
        [change(2 * torch.rand(x.shape, generator=generator) - 1) for _ in range(draws)]
    )
    corners = [change(torch.randn(x.shape, generator=generator).sign()) for _ in range(50)]
    corners += [change(step * gradient.sign()) for step in (-1, 1)]
    found = torch.stack([*inside, *corners]).amax(0)
    mean, error = inside.mean(0), inside.std(0) / math.sqrt(draws)
    above = found > vulnerability_bound(gradient) * (mean + 3 * error)
    return [f"{eps:g}", f"{float((found / mean).median()):.0f}", share(above)]


def on_networks(folder: Path, limit: int) -> Iterator[Table]:
    """Measure every table of the trained networks in a folder, on the first test images."""
    flips, affine, shifts, zeros, cubes = [], [], [], [], []
    for name in NETWORKS:
        run = Run.load(folder / name)
        model = run.model.eval()
        x, y = run.data.test.batch(torch.arange(min(limit, len(run.data.test))))
        before, after = distances(model, x)
        gradient = surrogate_gradient(model, x, y)
        shifts.append([name, *shift_cells(before)])
        zeros.append([name, *zero_cells(gradient)])
        if not torch.equal(before, after):
            flips += [[name, *row] for row in flip_rows(before, after)]
        else:
            affine.append([name, *affine_cells(model, x, gradient)])
            cubes += [[name, *true_cells(model, x, y, gradient, eps)] for eps in RADII]
    images = f"{len(x)} images"
    yield Table(
        f"TGO Theorem 1: flips in % by the network's own noise, {images}",
        ("network", "distance of v from v_th", "Theorem 1", "measured"),
        flips,
    )
    yield Table(
        f"TGO Theorem 2: {images}",
        ("network", "logits unchanged by a step of 10⁻⁶, % of images", "R_adv at least, Linf 0.1"),
        affine,
    )
    yield Table(
        f"TGO Eq. 17: {images}; spikes that a shift of all potentials by ±0.1 changes, % of them",
        ("network", "z² < 1, %", "σ = 0", "σ = 0.632", "difference", "difference at ±0.3"),
        shifts,
    )
    yield Table(
        f"gradient-trail Theorem 1: {images} of 64 pixels, gradient by the network's surrogate",
        ("network", "zero pixel gradients, %", "images with a zero gradient, %",
         "images with some zeros", "ratio", "its bound"),
        zeros,
    )  # fmt: skip
    yield Table(
        f"gradient-trail Theorem 1: {images}, the network without a surrogate",
        ("network", "ε", "median of the ratio found", "images above the bound, %"),
        cubes,
    )

"""Theorems against exact answers: the part of theory.py that needs no trained network."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from theory_supports import all_supports, counterexamples
from torch import Tensor

from spikeguard.analysis.theory import (
    flip_probability,
    peak_noise,
    perturbation_bound,
    perturbation_gain,
    shift_flip_probability,
)
from spikeguard.defences.mppd import perturbation_dynamics
from spikeguard.neurons import IF
from spikeguard.rng import stream
from spikeguard.system.intervals import wilson

SIGMA = math.sqrt(0.4)  # TGO's noise: variance 0.4
SHIFT = 0.1  # change of a potential that a perturbation makes, in membrane units


@dataclass(frozen=True)
class Table:
    """A table with a title; without columns only the title."""

    title: str
    head: tuple[str, ...] = ()
    rows: list[list[str]] = field(default_factory=list)

    def lines(self) -> list[tuple[str, ...]]:
        """Return the head, a rule and the rows, each as cells."""
        body = [tuple(re.sub(r"-(?=\d)", "−", cell) for cell in row) for row in self.rows]
        return [self.head, ("---",) * len(self.head), *body]


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


# --- TGO ------------------------------------------------------------------------------------------


def flip_rows(draws: int = 1_000_000) -> list[list[str]]:
    """Theorem 1: probability of a flip, exact and counted, by distance / sigma."""
    noise = torch.randn(draws, generator=stream(0, "theorem 1"), dtype=torch.float64) * SIGMA
    rows = []
    for ratio in (-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0):
        distance = double(ratio * SIGMA)
        counted = int(((distance + noise >= 0) != (distance >= 0)).sum())
        low, high = (100 * end for end in wilson(counted, draws))
        exact = 100 * float(flip_probability(distance, SIGMA))
        share = f"{100 * counted / draws:.2f} [{low:.2f}, {high:.2f}]"
        rows.append([f"{ratio:g}", f"{exact:.2f}", share])
    return rows


def step_example(x: float = 0.95, eps: float = 0.1) -> tuple[float, float]:
    """Theorem 2 on one neuron that fires at x >= 1, as f.

    Returns:
        R_adv in the interval [x - eps, x + eps], and the bound: eps^2 times the largest squared
        slope inside a region of one spike pattern.
    """
    points = torch.linspace(x - eps, x + eps, 2001).view(1, -1, 1)
    f = IF()(points).flatten().double()
    clean = IF()(torch.full((1, 1, 1), x)).double()
    slopes = f.diff() / points.flatten().double().diff()
    inside = slopes[IF()(points).flatten().diff() == 0]  # both points in the same region
    return float((f - clean).square().max()), eps**2 * float(inside.square().max())


def sum_example(n: int = 64, eps: float = 0.1) -> tuple[float, float]:
    """Eq. 10 under Linf on f(x) = x_1 + ... + x_n.

    Returns:
        R_adv, and eps^2 times the squared spectral norm of the Jacobian.
    """
    jacobian = torch.ones(1, n, dtype=torch.float64)
    return (n * eps) ** 2, eps**2 * float(torch.linalg.matrix_norm(jacobian, 2)) ** 2


def shift_rows() -> list[list[str]]:
    """Eq. 17: how often a shift changes the spike, by distance and noise; exact."""
    rows = []
    for distance in (-0.05, -0.2, -0.4, -SIGMA, -0.8, -1.0, -1.5):
        d = double(distance)
        chances = (shift_flip_probability(d, SHIFT, s) for s in (0.0, 0.1, 0.3, SIGMA, 1.0))
        cells = [f"{100 * float(chance):.2f}" for chance in chances]
        rows.append([f"{distance:.3g}", *cells, f"{float(peak_noise(d, SHIFT)):.2f}"])
    return rows


def over_all_distances(sigma: float) -> float:
    """Integrate the probability that a shift changes the spike over all distances."""
    grid = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    return float(torch.trapezoid(shift_flip_probability(grid, SHIFT, sigma), grid))


# --- stable-SNN -----------------------------------------------------------------------------------


def gain_of(inputs: Tensor, decay: float, weight: Tensor) -> Tensor:
    """Return |eps| / |Delta s| [B] of inputs [T, B, N], through the recursion of the package."""
    eps = perturbation_dynamics(inputs @ weight.T, decay)
    return (eps.square().sum((0, 2)) / inputs.square().sum((0, 2))).sqrt()


def random_gain(decay: float, T: int, weight: Tensor, draws: int = 10_000) -> float:
    """Return the largest gain of Gaussian inputs."""
    shape = (T, draws, weight.shape[1])
    inputs = torch.randn(shape, generator=stream(0, "random", T), dtype=torch.float64)
    return float(gain_of(inputs, decay, weight).max())


def spike_gain(decay: float, T: int) -> float:
    """Return the largest gain of differences of spikes: all of {-1, 0, 1}^T but zero, W = 1."""
    each = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    every = torch.cartesian_prod(*[each] * T).view(-1, T).T[..., None]
    every = every[:, every.abs().sum((0, 2)) > 0]
    return float(gain_of(every, decay, torch.ones(1, 1, dtype=torch.float64)).max())


def searched_gain(
    decay: float, T: int, weight: Tensor, starts: int = 16, steps: int = 300
) -> float:
    """Maximise the gain by gradient ascent from random starts, on the sphere of unit inputs.

    The step is unbounded: the normalised gradient is the next input. For this convex objective no
    step lowers it.
    """
    shape = (T, starts, weight.shape[1])
    inputs = torch.randn(shape, generator=stream(0, "gain", T), dtype=torch.float64)
    for _ in range(steps):
        inputs.requires_grad_()
        eps = perturbation_dynamics(inputs @ weight.T, decay)
        (gradient,) = torch.autograd.grad(eps.square().sum(), inputs)
        inputs = gradient / gradient.square().sum((0, 2), keepdim=True).sqrt()
    return float(gain_of(inputs, decay, weight).max())


def gain_rows() -> list[list[str]]:
    """Theorem 3.1: gains by decay and T in units of the spectral norm of W, 12 x 8."""
    weight = torch.randn(12, 8, generator=stream(0, "weight"), dtype=torch.float64)
    weight /= torch.linalg.matrix_norm(weight, 2)
    rows = []
    for decay, T in ((0.5, 2), (0.5, 3), (0.5, 4), (0.5, 8), (0.9, 8), (0.99, 8), (0.99, 20)):
        printed, exact = math.sqrt(1 / (1 - decay)), perturbation_gain(decay, T)
        rows.append(
            [
                f"{decay:g}",
                str(T),
                f"{printed:.3f}",
                f"{random_gain(decay, T, weight):.3f}",
                f"{spike_gain(decay, T):.3f}" if T <= 8 else "–",
                f"{searched_gain(decay, T, weight):.3f}",
                f"{exact:.3f}",
                f"{perturbation_bound(decay, T):.3f}",
            ]
        )
    return rows


def first_failure(decay: float) -> int:
    """Return the smallest T at which the printed bound does not hold."""
    return next(T for T in itertools.count(1) if perturbation_gain(decay, T) ** 2 * (1 - decay) > 1)


def search_over_weights(matrices: int = 50) -> tuple[float, float]:
    """Search for inputs with random W of 1 to 8 rows and columns, decays in [0, 1), T from 2 to 9.

    Returns:
        The largest searched gain as a share of the exact gain, and of the corrected bound.
    """
    generator = stream(0, "weights")
    of_exact = of_bound = 0.0
    for _ in range(matrices):
        rows, columns, T = (int(n) for n in torch.randint(1, 9, (3,), generator=generator))
        decay, T = float(torch.rand((), generator=generator)), T + 1
        weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
        norm = float(torch.linalg.matrix_norm(weight, 2))
        found = searched_gain(decay, T, weight, starts=4)
        of_exact = max(of_exact, found / perturbation_gain(decay, T, norm))
        of_bound = max(of_bound, found / perturbation_bound(decay, T, norm))
    return of_exact, of_bound


def closed_forms() -> Iterator[Table]:
    """Measure every table that needs no trained network."""
    yield Table(
        "TGO Theorem 1: probability of a flip in %, σ = 0.632, 1,000,000 draws",
        ("(v − v_th) / σ", "Theorem 1", "counted, 95 % interval"),
        flip_rows(),
    )
    yield Table("TGO Theorem 2, one neuron: {:g} ≤ {:g}".format(*step_example()))
    yield Table("TGO Eq. 10, Linf, sum of 64 pixels: {:.2f} ≤ {:.2f}".format(*sum_example()))
    yield Table(
        f"TGO Eq. 17: probability in % that a shift of +{SHIFT:g} changes the spike",
        ("v − v_th", "σ = 0", "σ = 0.1", "σ = 0.3", "σ = 0.632", "σ = 1", "σ*"),
        shift_rows(),
    )
    integrals = (f"{over_all_distances(s):.4f} (σ = {s:g})" for s in (0.1, 0.3, 0.632, 1))
    yield Table(f"TGO Eq. 17, integral over all distances: {', '.join(integrals)}")
    yield Table(
        "stable-SNN Theorem 3.1: gain in units of ‖W‖",
        ("λ", "T", "printed bound", "random", "spikes", "search", "exact", "corrected bound"),
        gain_rows(),
    )
    first = ", ".join(f"{first_failure(d)} (λ = {d:g})" for d in (0.1, 0.5, 0.9, 0.95, 0.99))
    yield Table(f"stable-SNN Theorem 3.1, fails from T = {first}")
    of_exact, of_bound = search_over_weights()
    yield Table(
        "stable-SNN Theorem 3.1, search with 50 random W: at most "
        f"{of_exact:.6f} of the exact gain, {of_bound:.6f} of the corrected bound"
    )
    yield Table(
        "gradient-trail Eq. 16 and Theorem 3, d = T = 8",
        ("inequality", "w₂", "w₁", "S", "it says"),
        counterexamples(),
    )
    pairs, broken, corrected = all_supports()
    yield Table(
        f"gradient-trail Eq. 16, all {pairs:,} pairs of 3 × 3 supports: {broken:,} "
        f"({100 * broken / pairs:.1f} %) break it, {corrected} break the corrected bound"
    )

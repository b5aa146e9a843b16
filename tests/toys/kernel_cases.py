"""Inputs for kernels, and the comparison of a kernel with the reference."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.neurons import Triangular
from spikeguard.rng import stream

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
TRIANGULAR = Triangular()
SHAPE = (4, 3, 2, 5)
SHARED = {"scalar": (), "step": (4, 1, 1, 1), "channel": (1, 1, 2, 1), "both": (4, 1, 2, 1)}


@dataclass(frozen=True)
class Case:
    """The inputs of one call; those among current, decay, gate and noise that are float need
    gradients. ``read`` names the outputs that enter the loss."""

    current: Tensor
    decay: Any
    gate: Tensor | None = None
    noise: Tensor | None = None
    v_th: float = 1.0
    reset: str = "hard"
    detach_reset: bool = False
    surrogate: Any = TRIANGULAR
    read: str = "both"


def draw(*shape, low=0.0, high=1.0, name="", dtype=torch.float64):
    unit = torch.rand(shape, generator=stream(0, "kernel", name), dtype=torch.float64)
    return (low + (high - low) * unit).to(dtype)


def case(dtype=torch.float64, shape=SHAPE, decay=(), gate=None, noise=False, **options):
    """Inputs that fire now and then; ``decay`` and ``gate`` are shapes."""
    return Case(
        draw(*shape, low=-0.5, high=1.7, name="current", dtype=dtype),
        draw(*decay, low=0.2, high=1.0, name="decay", dtype=dtype),
        None if gate is None else draw(*gate, low=0.5, high=1.5, name="gate", dtype=dtype),
        draw(*shape, low=-0.3, high=0.3, name="noise", dtype=dtype) if noise else None,
        **options,
    )


def leaves(c):
    """Return the case with fresh leaves that need gradients."""
    tensors = {n: getattr(c, n) for n in ("current", "decay", "gate", "noise")}
    fresh = {
        n: x.detach().clone().requires_grad_() if isinstance(x, Tensor) else x
        for n, x in tensors.items()
    }
    return replace(c, **fresh)


def call(kernel, c, **options):
    return integrate_and_fire(
        c.current,
        decay=c.decay,
        gate=c.gate,
        noise=c.noise,
        v_th=c.v_th,
        reset=c.reset,
        detach_reset=c.detach_reset,
        surrogate=c.surrogate,
        kernel=kernel,
        **options,
    )


def run(kernel, c, *, potentials=True):
    """Return the outputs, and the gradients of a random linear function of those that are read."""
    c = leaves(c)
    out = call(kernel, c, potentials=potentials)
    loss = torch.zeros((), dtype=torch.float64)
    if c.read in ("spikes", "both"):
        loss = loss + (out.spikes * weights(c.current.shape, "spikes")).sum()
    if c.read in ("v", "both"):
        loss = loss + (out.v * weights(c.current.shape, "v")).sum()
    loss.backward()
    wanted = ("current", "decay", "gate", "noise")
    inputs = {n: getattr(c, n) for n in wanted if isinstance(getattr(c, n), Tensor)}
    return out, {n: x.grad for n, x in inputs.items()}


def weights(shape, name):
    """Return weights in [-1, 1] that bfloat16 holds exactly."""
    return draw(*shape, low=-64, high=64, name=name).round() / 64


def unshared(c):
    """Return the case with decay and gate repeated to the shape of the current."""
    full = {"decay": c.decay.expand(c.current.shape).clone()}
    if c.gate is not None:
        full["gate"] = c.gate.expand(c.current.shape).clone()
    return replace(c, **full)


def compare(kernel, c):
    """Fail unless the kernel equals autograd through the reference.

    Forward bit for bit. A gradient may differ by the tolerance, relative to the largest entry of
    the reference's; where it is a sum over a shared decay or gate, to the sum of magnitudes.
    """
    expected, expected_grads = run("reference", c)
    found, found_grads = run(kernel, c)
    assert torch.equal(found.spikes, expected.spikes)
    assert torch.equal(found.v, expected.v)
    assert found.spikes.dtype == c.current.dtype and found.v.dtype == expected.v.dtype
    _, summands = run("reference", unshared(c))
    for name, grad in expected_grads.items():
        assert grad is not None and found_grads[name].shape == grad.shape, name
        scale = summands[name].abs().sum_to_size(grad.shape).max()
        error = (found_grads[name] - grad).abs().max()
        assert error <= TOLERANCE[c.current.dtype] * scale, f"{name}: off by {error / scale:.2g}"

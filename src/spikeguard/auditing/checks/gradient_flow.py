"""Does the gradient reach every time step and every layer? Checks S6, S7, S8."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.losses import cross_entropy
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.measurements.input_gradients import REPEATS, dead_by_sample
from spikeguard.auditing.measurements.layer_gradients import layer_gradients, watched
from spikeguard.auditing.tolerances import LUCK, percent, worst_of
from spikeguard.evaluation.estimates import Estimate
from spikeguard.models.snn import SNN

__all__ = ["every_step_has_a_gradient", "gradient_keeps_its_size", "no_dead_layers"]

_DEAD = 0.99
_VANISHING, _EXPLODING = 1e-4, 1e4
_SPIKING = "the model has no spiking layer of SpikeGuard"


def every_step_has_a_gradient(context: Context) -> CheckOutcome:
    """Every sample has an input gradient, and so has every time step.

    Computes the gradient of the loss with respect to the input and to the encoder's output at each
    step. A gradient attack does not move a sample without any; it cannot use a step at which no
    sample has one. Under noise as many draws are tested as an attack averages, and a gradient on
    one of them is enough. This is repeated four times, and a sample counts by the share of them.

    Source: SpikeGuard's own, after AutoAttack's flag for zero gradients.
    """
    if not any(isinstance(module, SNN) for module in context.model.modules()):
        return does_not_apply("the model is no SNN, so its time steps cannot be separated")
    found = [_per_step(context, index) for index in context.batches()]
    zero = torch.cat(found, 2)  # [R, T, N]
    n, samples = len(context), float(zero.all(1).double().sum()) / len(zero)
    by_step = zero.double().mean((0, 2)).tolist()
    blind = [t for t, share in enumerate(by_step) if share == 1]
    measured = (
        f"{samples:g} of {n} samples without a gradient at any step"
        + (f" (mean of {len(zero)} repeats)" if len(zero) > 1 else "")
        + f"; {percent(_mean(zero))} of (sample, step) without one"
    )
    measured += f"; step {', '.join(str(t + 1) for t in blind)} never" if blind else ""
    some = context.share(samples)
    return judged(
        failed=worst_of(some.above(LUCK), bool(blind)),
        measured=f"{measured}; {some}",
        threshold=f"samples without a gradient at most {percent(LUCK)}, and no step without one "
        "in all samples",
        sound="every step of every sample can be attacked",
        fault=f"{percent(samples / n)} of the samples have no gradient at any step"
        if samples
        else f"{len(blind)} of {len(by_step)} steps never have a gradient: the attack cannot use "
        "them",
        remedy="attack with a wider surrogate, and look for a detached membrane or a dead layer "
        "(S7)",
        evidence={
            "samples": samples,
            "share": _mean(zero),
            "blind_steps": blind,
            "by_step": by_step,
        },
    )


def no_dead_layers(context: Context) -> CheckOutcome:
    """No spiking layer blocks the gradient.

    Measures the share of (neuron, step) of each layer at which the surrogate is zero, on the
    potentials of the samples.

    Source: SpikeGuard's own.
    """
    shares = dead_by_sample(context)
    if not shares:
        return does_not_apply(_SPIKING)
    found = {name: Estimate.mean(each, context.looks) for name, each in shares.items()}
    dead = {name: each.value for name, each in found.items()}
    worst = max(dead, key=lambda name: dead[name])
    blocked = [name for name, each in found.items() if each.above(_DEAD)]
    return judged(
        failed=worst_of(*(each.above(_DEAD) for each in found.values())),
        measured=f"the surrogate is zero for at most {found[worst]} of a layer ({worst})",
        threshold=f"at most {percent(_DEAD)} of the neurons and steps of every layer",
        sound="every layer propagates gradients",
        fault=f"in {', '.join(blocked[:3])} the surrogate is zero for more than {percent(_DEAD)} "
        "of the potentials, so almost no gradient passes the layer",
        remedy=f"attack with a wider surrogate, at least in {', '.join(blocked[:3])}",
        evidence={"dead_surrogate": dead},
    )


def gradient_keeps_its_size(context: Context) -> CheckOutcome:
    """The gradient neither vanishes nor explodes between the last layer and the first.

    Measures the norm of the gradient at the output of the first spiking layer, divided by that at
    the last (first and last layer with weights if no layer spikes). Signed steps tolerate a small
    gradient; momentum, normalisation and rounding do not.

    Source: SpikeGuard's own.
    """
    with watched(context.model) as outputs:
        squares: dict[str, float] = {}
        zeros: dict[str, list[float]] = {}
        for index in context.batches():
            for name, grad in layer_gradients(context, index, outputs).items():
                size = 0.0 if grad is None else float(grad.double().square().sum())
                squares[name] = squares.get(name, 0.0) + size
                nothing = 1.0 if grad is None else float((grad == 0).double().mean())
                zeros.setdefault(name, []).append(nothing * len(index))
    if len(squares) < 2:
        return does_not_apply("fewer than two layers to compare")
    first, *_, last = squares
    ratio = (squares[first] / squares[last]) ** 0.5 if squares[last] else float("nan")
    what = "vanishes" if ratio < 1 else "explodes"
    return judged(
        failed=not _VANISHING <= ratio <= _EXPLODING,
        measured=f"norm at {first} over that at {last}: {ratio:.2g}",
        threshold=f"between {_VANISHING:g} and {_EXPLODING:g}",
        sound="the gradient at the first layer has about the size of that at the last",
        fault=f"the gradient {what} between {last} and {first} (ratio {ratio:.2g}), so the input "
        "gradient is dominated by rounding or noise",
        remedy="attack with a surrogate of another width (wider if gradients vanish because most "
        "are zero, narrower if its peak is small), or with BPTR",
        evidence={
            "ratio": ratio,
            "norms": {n: s**0.5 for n, s in squares.items()},
            "zero": {n: sum(shares) / len(context) for n, shares in zeros.items()},
        },
    )


def _per_step(context: Context, index: Tensor) -> Tensor:
    """Return whether the gradient is zero on every draw, by repeat, step and sample [R, T, B]."""
    network = next(m for m in context.model.modules() if isinstance(m, SNN))
    shown: list[Tensor] = []

    def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        # one copy per step: a constant encoder returns a single step for all
        steps = output.expand(network.T, *output.shape[1:]).clone()
        if not steps.requires_grad:
            steps.requires_grad_()
        shown.append(steps)
        return steps

    repeats, draws = (REPEATS, EOT) if context.stochastic else (1, 1)
    zero = torch.ones(repeats, network.T, len(index), dtype=torch.bool)
    handle = network.encoder.register_forward_hook(keep)  # type: ignore[attr-defined]
    try:
        with context.searching(index) as (x, y), torch.enable_grad():
            for draw in range(repeats * draws):
                x = x.detach().clone().requires_grad_()
                loss = cross_entropy(context.logits_of(x), y).sum()
                if loss.requires_grad:
                    found = torch.autograd.grad(loss, (shown[-1], x), allow_unused=True)
                    zero[draw // draws] &= _nothing(*found)
    finally:
        handle.remove()
    return zero


def _nothing(grad: Tensor | None, through: Tensor | None) -> Tensor | bool:
    """Return where a step has no gradient [T, B], or where none continues to the input."""
    if grad is None or through is None:
        return True
    if not bool(torch.isfinite(grad).all()):
        raise AttackError("the gradient is not finite; see S18")
    cut = through.flatten(1).abs().amax(1) == 0
    return ((grad.flatten(2).abs().amax(2) == 0) | cut).cpu()


def _mean(zero: Tensor) -> float:
    return float(zero.double().mean())

"""Are all numbers valid, and is the model left unchanged? Checks G27, G29, S18, S19."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError, NoGradientError
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.searches.pgd import PGD
from spikeguard.attacks.threat import ThreatViolation
from spikeguard.auditing.check import Outcome, does_not_apply, judged, reason
from spikeguard.auditing.context import Context
from spikeguard.neurons.modes import record

__all__ = ["model_is_untouched", "valid_numbers", "finite_under_attack", "valid_events"]

_SAMPLES = 16
_STEPS = 2


def valid_numbers(context: Context) -> Outcome:
    """Weights, logits, gradients and adversarial inputs are valid.

    Every adversarial batch of the audit must lie in its threat set and in [0, 1], in the shape and
    precision of the clean one. Nothing may be NaN or infinite; that need not show in the logits,
    for a NaN potential is below every threshold: a spiking layer swallows it.

    Source: Carlini et al., 2019 (arXiv:1902.06705).
    """
    faults = [f"{name} is not finite" for name, t in _tensors(context.model) if not _finite(t)]
    faults += _activity_faults(context)
    for attack in (context.fgsm(), context.pgd()):
        try:
            context.attacked(attack)
        except (AttackError, ThreatViolation):  # said above or by G15; noted in violations
            continue
    faults += context.violations.values()
    return judged(
        failed=bool(faults),
        measured="; ".join(faults[:2]) or f"{len(context.made)} attacks checked, nothing wrong",
        threshold="nothing is NaN or infinite, and every adversarial input lies in its threat set",
        sound="the scores are made of valid numbers and of inputs that the adversary may use",
        fault=f"scores made of invalid values mean nothing ({', '.join(faults[:1])})",
        remedy="repair the weights or the attack, then audit again",
        evidence={"faults": faults},
    )


def model_is_untouched(context: Context) -> Outcome:
    """An attack leaves the model as it was.

    Weights, buffers such as running statistics, training flags, ``requires_grad`` and gradients are
    compared before and after a short attack.

    Source: faults reported against attack libraries that enter or leave training mode.
    """
    before = _state(context.model)
    index = torch.arange(min(_SAMPLES, len(context)))
    x, y = context.x[index].to(context.device), context.y[index].to(context.device)
    PGD(context.threat, steps=_STEPS)(context.model, x, y)
    after = _state(context.model)
    changed = [n for n in before | after if not _equal(before.get(n), after.get(n))]
    return judged(
        failed=bool(changed),
        measured=f"{len(changed)} of {len(before)} entries change"
        + (f": {', '.join(changed[:3])}" if changed else ""),
        threshold="no weight, buffer, gradient or flag changes",
        sound="the model that was measured is the model that was handed over",
        fault="attacking the model changes it, so what was measured is not what was handed over",
        remedy="write to no buffer and no mode in forward; keep batch norm in evaluation mode",
        evidence={"changed": changed},
    )


def _activity_faults(context: Context) -> list[str]:
    """Say where potentials, logits or gradients are not finite."""
    faults: list[str] = []
    for index in context.batches():
        with context.searching(index) as (x, y):
            with torch.no_grad(), record(context.model) as trace:
                logits = context.model(x)
            wrong = [f"potentials of {n}" for n, layer in trace.items() if not _finite(layer.v)]
            wrong += [] if _finite(logits) else ["logits"]
            faults += [f"{what} are not finite" for what in wrong]
            if not wrong:
                try:
                    context.gradient()(context.model, x, y, cross_entropy)
                except NoGradientError:  # G15 says so
                    continue
                except AttackError as error:
                    faults.append(str(error))
    return list(dict.fromkeys(faults))


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _state(model: nn.Module) -> dict[str, Tensor | bool]:
    """Return all that an attack must leave as it is."""
    state: dict[str, Tensor | bool] = {n: t.detach().clone() for n, t in _tensors(model)}
    for name, weight in model.named_parameters():
        state[f"{name}.requires_grad"] = weight.requires_grad
        state[f"{name}.grad"] = weight.grad is not None
    return state | {f"{n or 'model'}.training": m.training for n, m in model.named_modules()}


def _equal(before: Tensor | bool | None, after: Tensor | bool | None) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        same = torch.isclose(before, after, rtol=0, atol=0, equal_nan=True)
        return before.shape == after.shape and bool(same.all())
    return before is after


def finite_under_attack(context: Context) -> Outcome:
    """Nothing is NaN or infinite where the attacks have led.

    Adversarial inputs of all attacks made, and the logits, potentials and input gradients there,
    are counted element by element. A threshold swallows a NaN: the spike is missing, the logits
    look sound and the sample may count as fooled, so that inputs and potentials themselves are
    looked at. G27 looks at the clean samples.

    Source: SpikeGuard's own.
    """
    stopped = ""
    try:
        context.attacked(context.pgd())
    except NoGradientError:  # G15 and G16 say so
        raise
    except (AttackError, ThreatViolation) as error:
        stopped = reason(error)
    bad = dict.fromkeys(("inputs", "potentials", "logits", "gradients"), 0)
    for outcome in list(context.made.values()):
        bad["inputs"] += _broken(outcome.x_adv)
        for index in context.batches():
            for name, number in _broken_at(context, outcome.x_adv[index], index).items():
                bad[name] += number
    found = {name: number for name, number in bad.items() if number}
    said = ", ".join(f"{number} {name}" for name, number in found.items()) or stopped
    return judged(
        failed=bool(said),
        measured=said or f"none in the inputs of {len(context.made)} attacks and what they cause",
        threshold="none",
        sound="the attacks led nowhere that numbers end",
        fault=f"numbers end under attack ({said}): a NaN below the threshold looks like silence, "
        "and the scores mean nothing",
        remedy="find the division by zero or the overflow (attack's momentum, batch norm, weights)",
        evidence={**bad, "stopped": stopped},
    )


def valid_events(context: Context) -> Outcome:
    """Adversarial events are events.

    For a threat on events (one with ``events = True``): counts stay whole numbers >= 0, binary
    grids stay binary, shape and time bins stay, and no more cells change than the budget allows.

    Source: Büchel et al., 2022 (arXiv:2110.02929); the conditions are SpikeGuard's own.
    """
    if not getattr(context.threat, "events", False):
        return does_not_apply("the threat is on images, not on events")
    context.attacked(context.pgd())
    x = context.x
    binary = bool(((x == 0) | (x == 1)).all())
    faults: dict[str, int] = {}
    for outcome in context.made.values():
        x_adv = outcome.x_adv
        if x_adv.shape != x.shape:
            faults["another shape"] = len(x)
            continue
        whole = (x_adv >= 0) & (x_adv == x_adv.round())
        whole &= (x_adv <= 1) if binary else torch.ones_like(whole)
        changed = (x_adv != x).flatten(1).sum(1)
        counts = {
            "cells that are no events": int((~whole).sum()),
            "samples over budget": int((changed > context.threat.eps).sum()),
        }
        for name, number in counts.items():
            faults[name] = faults.get(name, 0) + number
    found = {name: number for name, number in faults.items() if number}
    said = ", ".join(f"{number} {name}" for name, number in found.items())
    return judged(
        failed=bool(found),
        measured=said or f"{len(context.made)} attacks made events only",
        threshold=f"whole numbers >= 0, and at most {context.threat.eps:g} cells changed",
        sound="a sensor could have sent what the attack made",
        fault=f"the attack made inputs that are no events ({said})",
        remedy="round and project inside the attack, not after it",
        evidence=faults,
    )


def _broken(tensor: Tensor) -> int:
    return int((~torch.isfinite(tensor)).sum())


def _broken_at(context: Context, x_adv: Tensor, index: Tensor) -> dict[str, int]:
    """Count what is not finite in what some inputs cause."""
    with context.searching(index) as (_, y), torch.enable_grad(), record(context.model) as trace:
        x = x_adv.to(context.device).detach().clone().requires_grad_()
        logits = context.model(x)
        loss = cross_entropy(logits, y).sum()
        grad = None
        if loss.requires_grad:
            (grad,) = torch.autograd.grad(loss, x, allow_unused=True)
    return {
        "potentials": sum(_broken(layer.v) for layer in trace.values()),
        "logits": _broken(logits),
        "gradients": 0 if grad is None else _broken(grad),
    }

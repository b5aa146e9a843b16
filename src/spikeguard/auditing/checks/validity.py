"""Are all numbers valid, and is the model left unchanged? Checks G27, G29, S18, S19."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError, NoGradientError
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.searches.pgd import PGD
from spikeguard.attacks.threat import ThreatViolation
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged, reason
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.event_faults import event_faults
from spikeguard.neurons.modes import record

__all__ = ["model_is_untouched", "valid_numbers", "finite_under_attack", "valid_events"]

_SAMPLES = 16
_STEPS = 2


def valid_numbers(context: Context) -> CheckOutcome:
    """Weights, logits, gradients and adversarial inputs are valid.

    Every adversarial batch of the audit must be inside its threat set and [0, 1], with the shape
    and precision of the clean one. Nothing may be NaN or infinite. Finite logits do not prove that:
    a NaN potential never crosses the threshold, so the layer emits no spike.

    Source: Carlini et al., 2019 (arXiv:1902.06705).
    """
    faults = [f"{name} is not finite" for name, t in _tensors(context.model) if not _finite(t)]
    faults += _activity_faults(context)
    for attack in (context.fgsm(), context.pgd()):
        try:
            context.attacked(attack)
        except (AttackError, ThreatViolation):  # reported above, by G15 or in violations
            continue
    faults += context.violations.values()
    return judged(
        failed=bool(faults),
        measured="; ".join(faults[:2]) or f"{len(context.made)} attacks checked, nothing wrong",
        threshold="nothing is NaN or infinite, and every adversarial input lies in its threat set",
        sound="all numbers are valid, and all inputs are allowed to the adversary",
        fault=f"scores computed from invalid values are meaningless ({', '.join(faults[:1])})",
        remedy="repair the weights or the attack, then audit again",
        evidence={"faults": faults},
    )


def model_is_untouched(context: Context) -> CheckOutcome:
    """An attack does not change the model.

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
        sound="the measured model is the given one",
        fault="attacks change the model, so the measured model is not the given one",
        remedy="write no buffer and switch no mode in forward; keep batch norm in evaluation mode",
        evidence={"changed": changed},
    )


def _activity_faults(context: Context) -> list[str]:
    """Return messages for potentials, logits or gradients that are not finite."""
    faults: list[str] = []
    for index in context.batches():
        with context.searching(index) as (x, y):
            with torch.no_grad(), record(context.model) as trace:
                logits = context.logits_of(x)
            wrong = [f"potentials of {n}" for n, layer in trace.items() if not _finite(layer.v)]
            wrong += [] if _finite(logits) else ["logits"]
            faults += [f"{what} are not finite" for what in wrong]
            if not wrong:
                try:
                    context.gradient()(context.model, x, y, cross_entropy)
                except NoGradientError:  # G15 reports it
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
    """Return the state of the model that an attack must not change."""
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


def finite_under_attack(context: Context) -> CheckOutcome:
    """Nothing is NaN or infinite at the adversarial inputs.

    Counts elements that are not finite in the adversarial inputs of all attacks made, and in the
    logits, potentials and input gradients there. A NaN potential never crosses the threshold: the
    spike is missing, the logits stay finite and the sample may count as fooled. G27 tests the clean
    samples.

    Source: SpikeGuard's own.
    """
    stopped = ""
    try:
        context.attacked(context.pgd())
    except NoGradientError:  # G15 and G16 report it
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
    summary = ", ".join(f"{number} {name}" for name, number in found.items()) or stopped
    return judged(
        failed=bool(summary),
        measured=summary or f"none at the inputs of {len(context.made)} attacks",
        threshold="none",
        sound="all numbers at the adversarial inputs are finite",
        fault=f"numbers are not finite under attack ({summary}): a NaN potential looks like a "
        "silent neuron, and the scores are meaningless",
        remedy="find the division by zero or the overflow (attack's momentum, batch norm, weights)",
        evidence={**bad, "stopped": stopped},
    )


def valid_events(context: Context) -> CheckOutcome:
    """Adversarial events are valid events.

    For a threat on events (one with ``events = True``): the shape is that of the clean input,
    values stay integers >= 0, binary grids stay binary, no cell gets events of both polarities, and
    the budget holds. No retiming changes the number of events of a line, and no other attack the
    number of a sample by more than the budget. The conditions are counted here, apart from the
    threat's own check.

    Source: Büchel et al., 2022 (arXiv:2110.02929); the conditions are SpikeGuard's own.
    """
    if not getattr(context.threat, "events", False):
        return does_not_apply("the threat is on images, not on events")
    context.attacked(context.pgd())
    x = context.x
    faults: dict[str, int] = {}
    for outcome in context.made.values():
        for name, number in event_faults(outcome.x_adv, x, context.threat).items():
            faults[name] = faults.get(name, 0) + number
    found = {name: number for name, number in faults.items() if number}
    summary = ", ".join(f"{number} {name}" for name, number in found.items())
    return judged(
        failed=bool(found),
        measured=summary or f"the inputs of {len(context.made)} attacks are valid events",
        threshold=f"integers >= 0 of the same shape, within {context.threat}",
        sound="a sensor could produce these inputs",
        fault=f"the attack made inputs that are no valid events ({summary})",
        remedy="round and project inside the attack, not after it",
        evidence=faults,
    )


def _broken(tensor: Tensor) -> int:
    return int((~torch.isfinite(tensor)).sum())


def _broken_at(context: Context, x_adv: Tensor, index: Tensor) -> dict[str, int]:
    """Count the elements that are not finite in the network's response to some inputs."""
    with context.searching(index) as (_, y), torch.enable_grad(), record(context.model) as trace:
        x = x_adv.to(context.device).detach().clone().requires_grad_()
        logits = context.logits_of(x)
        loss = cross_entropy(logits, y).sum()
        grad = None
        if loss.requires_grad:
            (grad,) = torch.autograd.grad(loss, x, allow_unused=True)
    return {
        "potentials": sum(_broken(layer.v) for layer in trace.values()),
        "logits": _broken(logits),
        "gradients": 0 if grad is None else _broken(grad),
    }

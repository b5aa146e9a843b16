"""G27, S18, G29: are the numbers numbers, the bounds kept and the model untouched?"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from spikeguard.attacks import PGD, AttackError, NoGradientError, ThreatViolation, cross_entropy
from spikeguard.auditing.context import Context, title
from spikeguard.auditing.findings import Finding
from spikeguard.neurons import record

__all__ = ["model_is_untouched", "valid_numbers"]


def valid_numbers(context: Context) -> Finding:
    """Weights, logits, gradients and adversarial inputs are valid.

    Every adversarial batch of the audit must lie in its threat set, in [0, 1], in the shape and
    precision of the clean one and without NaN. A NaN elsewhere need not show: a NaN potential is below
    every threshold, so a spiking layer swallows it.

    Source: Carlini et al., 2019 (arXiv:1902.06705), Section 5.
    """
    faults = [f"{name} is not finite" for name in _not_finite(context.model)]
    faults += _activity_faults(context)
    for attack in (context.fgsm(), context.pgd()):
        try:
            context.attacked(attack)
        except (AttackError, ThreatViolation):  # the first is G15's or above, the second noted
            continue
    faults += context.violations.values()
    return Finding(
        "G27",
        title(valid_numbers),
        "fail" if faults else "pass",
        "; ".join(faults[:2]) if faults else f"{len(context.made)} attacks checked, none at fault",
        "no NaN or infinity anywhere, every adversarial input inside its threat set",
        f"numbers computed from invalid values mean nothing ({faults[0]})" if faults else "",
        "repair the weights or the attack, then audit again" if faults else "",
        {"faults": faults},
    )


def model_is_untouched(context: Context) -> Finding:
    """An attack leaves the model as it was.

    Weights, buffers such as running statistics, training flags and ``requires_grad`` are compared before
    and after a short attack.

    Source: faults reported against attack libraries that enter or leave training mode.
    """
    before = _state(context.model)
    index = torch.arange(min(16, len(context)))
    x, y = context.x[index].to(context.device), context.y[index].to(context.device)
    PGD(context.threat, steps=2)(context.model, x, y)
    after = _state(context.model)
    changed = [name for name in before if not _equal(before[name], after.get(name))]
    changed += [name for name in after if name not in before]
    return Finding(
        "G29",
        title(model_is_untouched),
        "fail" if changed else "pass",
        f"changed: {', '.join(changed[:3])}" if changed else f"{len(before)} entries unchanged",
        "no weight, buffer or flag changes",
        "attacking the model changes it, so what was measured is not the model that was handed over"
        if changed
        else "",
        "do not write to buffers or modes in forward; put batch norm in evaluation mode"
        if changed
        else "",
        {"changed": changed},
    )


def _activity_faults(context: Context) -> list[str]:
    """Say where potentials, logits or gradients are not finite."""
    faults: dict[str, None] = {}
    for index in context.batches():
        with context.searching(index) as (x, y):
            with torch.no_grad(), record(context.model) as trace:
                logits = context.model(x)
            bad = [f"potentials of {n}" for n, layer in trace.items() if not _finite(layer.v)]
            bad += [] if _finite(logits) else ["logits"]
            faults |= dict.fromkeys(f"{what} are not finite" for what in bad)
            if not bad:
                try:
                    context.gradient()(context.model, x, y, cross_entropy)
                except NoGradientError:  # G15 says so
                    continue
                except AttackError as error:
                    faults[str(error)] = None
    return list(faults)


def _not_finite(model: nn.Module) -> list[str]:
    return [name for name, tensor in _tensors(model) if not _finite(tensor)]


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _state(model: nn.Module) -> dict[str, Tensor | bool]:
    """Return all that an attack must not change; running it must not leave gradients either."""
    state: dict[str, Tensor | bool] = {n: t.detach().clone() for n, t in _tensors(model)}
    for name, weight in model.named_parameters():
        state[f"{name}.requires_grad"] = weight.requires_grad
        state[f"{name}.grad"] = weight.grad is not None
    return state | {f"{name or 'model'}.training": m.training for name, m in model.named_modules()}


def _equal(before: Tensor | bool, after: Tensor | bool | None) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return before.shape == after.shape and bool(
            torch.isclose(before, after, rtol=0, atol=0, equal_nan=True).all()
        )
    return before is after

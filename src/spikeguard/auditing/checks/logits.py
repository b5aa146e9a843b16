"""Do these logits suit the losses of the attacks? Checks G20, G23, S9, S10."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from spikeguard.attacks.base import AttackError
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.tolerances import LUCK, percent, worst_of
from spikeguard.neurons.modes import record
from spikeguard.neurons.trace import LayerTrace

__all__ = ["distinct_logits", "enough_classes", "rates_can_move", "unbounded_logits"]

_SUM = 1e-5  # AutoAttack's tolerance for rows that sum to 1
_DEAD = 1e-6  # a surrogate derivative below this counts as zero
_NEEDS = {"dlr": 3, "targeted_dlr": 4}


def unbounded_logits(context: Context) -> CheckOutcome:
    """Outputs are logits, neither probabilities nor saturated.

    Rows in [0, 1] that sum to 1 are the output of a softmax; a second softmax in the loss flattens
    the loss. If the largest logit leads by more than float32 can resolve, the cross-entropy and its
    gradient are exactly 0.

    Source: Croce and Hein, 2020 (AutoAttack's flag for softmax outputs).
    """
    logits = _logits(context)
    inside = bool((logits.min() > -_SUM) & (logits.max() < 1 + _SUM))
    softmax = inside and bool(((logits.sum(1) - 1).abs() < _SUM).all())
    bound = -math.log(torch.finfo(torch.float32).eps / 2)
    top = logits.topk(2, dim=1).values
    lead = top[:, 0] - top[:, 1]
    gap, far = float(lead.median()), context.share(int((lead > bound).sum()))
    faults = ["each row lies in [0, 1] and sums to 1"] if softmax else []
    saturated = far.above(0.5)
    faults += [f"the largest logit leads by {gap:.3g} in the median"] if saturated else []
    return judged(
        failed=worst_of(softmax, saturated),
        measured=("; ".join(faults) or f"logits, the largest leads by {gap:.3g} in the median")
        + f"; by more than {bound:.1f} for {far}",
        threshold=f"rows that do not all sum to 1 (within {_SUM:g}); a lead above {bound:.1f} "
        "for at most half of the samples",
        sound="the losses of the attacks have a gradient",
        fault=f"{' and '.join(faults)}: the cross-entropy is flat there, and attacks on it do "
        "not move",
        remedy="attack the logits before the softmax, or use the margin or DLR loss, which "
        "ignore the scale",
        evidence={"softmax": softmax, "median_gap": gap},
    )


def enough_classes(context: Context) -> CheckOutcome:
    """The loss of the reported attack is defined for this number of classes.

    The difference of logits ratio (DLR) divides by the gap to the third logit, the targeted form by
    that to the fourth, so with fewer classes they are not defined. The audit's own attack then uses
    the margin, by the definition of its loss.

    Source: Croce and Hein, 2020 (AutoAttack's class count).
    """
    classes = context.classes
    used = set(_losses(context.reference()))
    unfit = sorted(name for name in used if classes < _NEEDS.get(name, 2))
    wrong = unfit if context.attack is not None else []
    missing = [name for name, needs in _NEEDS.items() if classes < needs]
    measured = f"{classes} classes; the reported attack uses {', '.join(sorted(used)) or 'no loss'}"
    return judged(
        failed=bool(wrong),
        measured=measured
        + (f"; {' and '.join(missing)} not possible" if missing else "")
        + ("; the margin replaces it" if unfit and not wrong else ""),
        threshold="DLR needs 3 classes, targeted DLR 4",
        sound="the loss fits the number of classes",
        fault=f"{', '.join(wrong)} is not defined for {classes} classes: the attack ran with "
        "another loss under that name",
        remedy="use the margin loss, which needs two classes, and report it by that name",
        evidence={"classes": classes, "used": sorted(used), "wrong": wrong},
    )


def distinct_logits(context: Context) -> CheckOutcome:
    """The largest logit is unique.

    Firing rates are multiples of 1/T, so equal logits are common. If the label's logit is one of
    several largest ones, the order of the classes decides whether the sample is correct. Losses
    that compare the largest two or three logits are flat or divide by 0 there, and a search that
    accepts only a smaller loss never moves. Measured on the clean samples and on PGD's inputs.

    Source: SpikeGuard's own; AutoAttack's issue on rows whose DLR is constant.
    """
    clean, y = _logits(context), context.y
    seen = {"clean": clean, "adversarial": _logits(context, context.attacked(context.pgd()).x_adv)}
    n = len(context)
    two, three, decided = {}, {}, {}
    for name, logits in seen.items():
        top = logits.topk(min(3, logits.shape[1]), dim=1).values
        two[name] = int((top[:, 0] == top[:, 1]).sum())
        three[name] = int((top[:, 0] == top[:, -1]).sum()) if top.shape[1] == 3 else 0
        shared = (top[:, 0] == top[:, 1]) & (logits.gather(1, y[:, None])[:, 0] == top[:, 0])
        decided[name] = int(shared.sum())
    distinct = len(set(clean.flatten().tolist()))
    most = max(two, key=lambda name: two[name])
    return judged(
        failed=context.share(two[most]).above(LUCK),
        measured=f"{two[most]} of {n} {most} samples have two largest logits, "
        f"{decided[most]} of them with the label; {distinct} distinct values",
        threshold=f"ties at most {percent(LUCK)}",
        sound="no prediction depends on the order of the classes",
        fault=f"{percent(two[most] / n)} of the {most} samples have two largest logits: their loss "
        "is flat, and the order of the classes decides which samples are correct",
        remedy="attack with the margin loss on the membrane potentials (MembraneReadout, in the "
        "suite 'snn') and with a Square that accepts ties",
        evidence={
            "top_two": two,
            "top_three": three,
            "label_shares": decided,
            "distinct": distinct,
        },
    )


def rates_can_move(context: Context) -> CheckOutcome:
    """Output neurons are not stuck at rate zero or one.

    A sample is stuck if every output neuron fires at no step or at every step and all their
    surrogates are zero throughout: then no loss has a gradient.

    Source: Liang et al., 2021 (arXiv:2001.01587), who raise the threshold of the last layers when
    they compute the gradient.
    """
    stuck, saturated = [], []
    for index in context.batches():
        with context.searching(index) as (x, _), torch.no_grad(), record(context.model) as trace:
            logits = context.logits_of(x)
            last = next(reversed(list(trace.values())), None)
        if last is None or not _is_readout(last, logits):
            return does_not_apply("the logits are not the rates of output neurons")
        rate = last.spikes.mean(0).flatten(1)
        full = (rate == 0) | (rate == 1)
        slope = last.surrogate(last.v - last.v_th).abs().amax(0).flatten(1)
        saturated.append(full.double().mean(1).cpu())
        stuck.append((full & (slope < _DEAD)).all(1).cpu())
    count, n = int(torch.cat(stuck).sum()), len(context)
    share = float(torch.cat(saturated).mean())
    return judged(
        failed=context.share(count).above(LUCK),
        measured=f"{count} of {n} samples with all output neurons stuck; {percent(share)} of the "
        "output rates are 0 or 1",
        threshold=f"stuck samples at most {percent(LUCK)}",
        sound="the output rates can change",
        fault=f"for {percent(count / n)} of the samples no output neuron is near its threshold, so "
        "the loss has no gradient",
        remedy="widen the surrogate of the output layer or raise its threshold when computing the "
        "gradient, or attack its membrane potential (MembraneReadout)",
        evidence={"stuck": count, "saturated": share},
    )


def _logits(context: Context, x: Tensor | None = None) -> Tensor:
    """Return the logits of all samples, or of inputs that replace them [N, K], on the CPU."""
    x = context.x if x is None else x
    parts = []
    for index in context.batches():
        with context.searching(index), torch.no_grad():
            parts.append(context.logits_of(x[index].to(context.device)).cpu())
    logits = torch.cat(parts)
    if not bool(torch.isfinite(logits).all()):
        raise AttackError("the model's logits are not finite; see G27")
    return logits


def _losses(part: object) -> Iterator[str]:
    """Yield the names of the losses in the fields of an attack, at any depth."""
    if is_dataclass(part):
        for field in fields(part):
            value = getattr(part, field.name)
            if field.name == "loss":
                yield getattr(value, "__name__", type(value).__name__)
            else:
                yield from _losses(value)
    elif isinstance(part, list | tuple):
        for item in part:
            yield from _losses(item)


def _is_readout(last: LayerTrace, logits: Tensor) -> bool:
    rate = last.spikes.mean(0)
    return rate.shape == logits.shape and torch.allclose(rate, logits)

"""Would more steps, more restarts or another step size find more? Checks G8, G9, G10, G11, G12."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from spikeguard.attacks.base import Attack
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.trajectories import (
    DRAWS,
    Walk,
    on_fresh_draws,
    unseen,
    walk,
)
from spikeguard.auditing.tolerances import LUCK, ROUNDING, differs, fooled_alone, percent
from spikeguard.evaluation.estimates import Estimate

__all__ = [
    "loss_has_settled",
    "more_restarts_change_nothing",
    "more_steps_change_nothing",
    "step_size_is_right",
    "success_is_kept",
]

_SETTLED = 0.10  # share of the total gain in loss; sound spiking networks show up to 5 %
_TINY = 1e-12
_FACTORS = (0.25, 0.5, 2.0, 4.0)


def more_steps_change_nothing(context: Context) -> CheckOutcome:
    """Twice the steps find no more.

    If an attack stops while it still finds adversarial inputs, the accuracy depends on its length.

    Source: Carlini et al., 2019 (arXiv:1902.06705).
    """
    attack = context.reference()
    steps = getattr(attack, "steps", None)
    if steps is None:
        return does_not_apply("the attack takes no steps")
    first = context.attacked(attack)
    second = context.attacked(_with(attack, steps=2 * steps))
    once, twice, gap = first.accuracy, second.accuracy, context.gap(first.right, second.right)
    return judged(
        failed=gap.above(LUCK),
        measured=f"{percent(once)} left after {steps} steps, {percent(twice)} after {2 * steps}; "
        f"lower by {gap}, n = {len(context)}",
        threshold=f"twice the steps lower accuracy by at most {percent(LUCK)}",
        sound="the attack has enough steps",
        fault=f"with twice the steps the attack leaves {percent(twice)} instead of "
        f"{percent(once)}: the number depends on the length of the attack",
        remedy="double the steps until the accuracy no longer changes",
        evidence={"steps": steps, "once": once, "twice": twice},
    )


def more_restarts_change_nothing(context: Context) -> CheckOutcome:
    """Twice the restarts find no more.

    If every further random start still finds adversarial inputs, the accuracy depends on the number
    of restarts.

    Source: Carlini et al., 2019 (arXiv:1902.06705).
    """
    attack: Any = context.reference()
    if not hasattr(attack, "restarts"):
        return does_not_apply("the attack has no restarts")
    if not getattr(attack, "random_start", True):
        return does_not_apply("without a random start every restart is the same search")
    tries = max(context.tries, attack.restarts)
    once = context.attacked(attack).accuracy
    first = context.attacked(context.strongest())
    second = context.attacked(_with(attack, restarts=2 * tries))
    few, many, gap = first.accuracy, second.accuracy, context.gap(first.right, second.right)
    return judged(
        failed=gap.above(LUCK),
        measured=f"{percent(once)} left after {getattr(attack, 'restarts', 1)}, {percent(few)} "
        f"after {tries}, {percent(many)} after {2 * tries} restarts; lower by {gap}, "
        f"n = {len(context)}",
        threshold=f"the second {tries} restarts fool at most {percent(LUCK)}",
        sound="the attack has enough restarts",
        fault=f"every further restart still finds adversarial inputs: {tries} more lower the "
        f"accuracy from {percent(few)} to {percent(many)}",
        remedy="double the restarts until the accuracy no longer changes, and look for a gradient "
        "that misleads: luck should not matter so much",
        evidence={"tries": tries, "one": once, "few": few, "many": many},
    )


def loss_has_settled(context: Context) -> CheckOutcome:
    """The loss of the unfooled samples has converged when the attack ends.

    The best loss so far of samples that no step fools must gain at most 10 % of its total gain
    in the last ten steps. Under noise the best of many values always grows, so the loss at the best
    point before the last ten steps and at the best point of all is measured again, on 32 fresh
    draws that both share. If at most 12 % of the samples are unfooled, the check does not apply:
    they can change the accuracy by no more.

    Source: Pintor et al., "Indicators of attack failure", 2022 (arXiv:2106.09947).
    """
    attack: Any = context.reference()
    if why := unseen(attack):
        return does_not_apply(why)
    seen = walk(context, attack)
    steps, last = len(seen.loss), seen.last
    resisting = (context.clean > 0) & (seen.right.amin(0) > 0)
    curve = _curve(seen, resisting, context)
    count, n = int(resisting.sum()), len(context)
    if not count or context.share(count).above(LUCK) is False or not last:
        why = f"{n - count} of {n} samples are misclassified or fooled during the search"
        nothing = does_not_apply(why)
        return replace(nothing, evidence={"steps": steps, "resisting": count, "curve": curve})
    if seen.points is None:
        shares = _late(seen.loss[:, resisting], last)
    else:
        shares = _late_again(on_fresh_draws(context, seen.points, attack.loss)[:, resisting])
    gain = Estimate.mean(shares, context.looks)
    late = gain.value
    return judged(
        failed=gain.above(_SETTLED),
        measured=f"{gain} of the gain in loss falls into the last {last} of {steps} "
        f"steps, for the {count} unfooled samples"
        + (f", on {DRAWS} fresh draws" if seen.points is not None else ""),
        threshold=f"at most {percent(_SETTLED)}",
        sound="the loss has converged",
        fault=f"the loss is still growing when the attack ends: {percent(late)} of its gain falls "
        f"into the last {last} steps",
        remedy="use more steps, and shorter ones towards the end (APGD)",
        evidence={
            "late": late,
            "steps": steps,
            "last": last,
            "resisting": count,
            "curve": curve,
        },
    )


def success_is_kept(context: Context) -> CheckOutcome:
    """The attack returns the adversarial inputs that it finds.

    If a step fools the model and the returned input does not, the attack succeeded and reports a
    failure. PGD does this, because it returns its last point.

    Source: Pintor et al., "Indicators of attack failure", 2022 (arXiv:2106.09947).
    """
    attack = context.reference()
    if why := unseen(attack):
        return does_not_apply(why)
    if context.stochastic:
        why = "under noise a single draw does not show whether an input fools the model"
        return does_not_apply(why)
    seen, n = walk(context, attack), len(context)
    thrown = fooled_alone(seen.right.amin(0), torch.minimum(seen.end, context.clean))
    lost = context.share(thrown)
    return judged(
        failed=differs(lost),
        measured=f"{thrown} of {n} fooled during the search and correct again at its end, {lost}",
        threshold=f"clearly not above {percent(ROUNDING)}",
        sound="the attack keeps the adversarial inputs that it finds",
        fault=f"{percent(thrown / n)} of the samples were fooled during the search, and later "
        "steps lost them",
        remedy="return the best point of every search: APGD, or evaluate(cascade=True)",
        evidence={"thrown_away": thrown, "samples": n},
    )


def step_size_is_right(context: Context) -> CheckOutcome:
    """No other step size is better.

    Tests the reported attack if it has a step size, else PGD.

    Source: Tramèr et al., 2020 (arXiv:2002.08347); Carlini et al., 2019 (arXiv:1902.06705).
    """
    attack: Any = context.reference()
    if not hasattr(attack, "step_size"):
        attack = context.pgd()
    usual_length = attack.step_size or 2.5 * context.threat.eps / attack.steps
    length = getattr(attack, "step_length", usual_length)
    usual = context.attacked(attack)
    tried = {
        factor: context.attacked(_with(attack, step_size=factor * length)) for factor in _FACTORS
    }
    own, others = usual.accuracy, {factor: out.accuracy for factor, out in tried.items()}
    best = min(others, key=lambda factor: others[factor])
    gap = context.gap(usual.right, tried[best].right)
    return judged(
        failed=gap.above(LUCK),
        measured=f"{percent(own)} left with steps of {length:.3g}; "
        + ", ".join(f"{percent(right)} with {f:g} times that" for f, right in others.items())
        + f"; lower by {gap}, n = {len(context)}",
        threshold=f"none lower by more than {percent(LUCK)}",
        sound="the step size does not decide the result",
        fault=f"with steps {best:g} times as long the attack leaves {percent(others[best])} "
        f"instead of {percent(own)}: the number is an artefact of the step size",
        remedy=f"use steps {best:g} times as long, or an attack that adapts them (APGD)",
        evidence={"own": own, "step": length, "others": {str(f): a for f, a in others.items()}},
    )


def _curve(seen: Walk, resisting: Tensor, context: Context) -> dict[str, list[float]]:
    """Return mean and quartiles of the loss at every step, and the share still correct.

    The loss is that of the unfooled samples, or of all samples if none is left. Without noise both
    curves hold the best value so far.
    """
    loss = seen.loss[:, resisting] if bool(resisting.any()) else seen.loss
    right = torch.minimum(seen.right, context.clean)
    if not context.stochastic:
        loss, right = loss.cummax(0).values, right.cummin(0).values
    low, high = torch.quantile(loss, loss.new_tensor([0.25, 0.75]), dim=1)
    parts = {"loss": loss.mean(1), "low": low, "high": high, "right": right.mean(1)}
    return {name: part.tolist() for name, part in parts.items()}


def _late(loss: Tensor, last: int) -> Tensor:
    """Return the share of each sample's gain in loss [steps, N] that falls into the last steps."""
    best = loss.cummax(0).values
    return (best[-1] - best[-1 - last]) / (best[-1] - best[0]).clamp_min(_TINY)


def _late_again(loss: Tensor) -> Tensor:
    """Return values [N] whose mean is the late gain under noise as a share of the total gain.

    Their spread is that of the share, a ratio of two means: each sample's late gain minus the share
    of its own gain.

    Args:
        loss: Loss on fresh draws at the first point, at the best point before the last steps, and
            at the best point [3, N].

    Source: Cochran, "Sampling Techniques", 3rd ed., 1977, section 2.11.
    """
    late, gain = loss[2] - loss[1], loss[2] - loss[0]
    mean = gain.mean().abs().clamp_min(_TINY)
    share = late.mean() / mean
    return share + (late - late.mean() - share * (gain - gain.mean())) / mean


def _with(attack: Attack, **changes: float) -> Attack:
    changed: Attack = replace(attack, **changes)  # type: ignore[type-var]
    return changed

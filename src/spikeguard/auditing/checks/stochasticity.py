"""Is the model deterministic, or random and attacked as such? Checks G19, S11."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from spikeguard.attacks.gradients.base import Backprop, EoT
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.measurements.repeatability import source_of_change
from spikeguard.auditing.tolerances import LUCK, percent, worst_of

__all__ = ["determinism", "enough_draws"]

_SAMPLES = 64
_FORWARDS = 5
_DISTANCE = 1e-4


def determinism(context: Context) -> CheckOutcome:
    """The model is deterministic, or random and attacked as such.

    A deterministic model returns the same logits every time. A random one declares it
    (``stochastic``), so that adversarial inputs are scored on fresh draws. The gradient of one draw
    may be misleading, so PGD along the mean gradient of several draws must not be clearly stronger
    than along that of one.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); Croce and Hein, 2020 (AutoAttack's
    flag for random defences).
    """
    return _averaged(context) if context.stochastic else _repeated(context)


def _repeated(context: Context) -> CheckOutcome:
    """Compare several forward passes of a model that declares no noise."""
    index = torch.arange(min(_SAMPLES, len(context)))
    logits = [context.logits(index, name=f"forward {i}") for i in range(_FORWARDS)]
    unit = torch.stack([normalize(z.double(), dim=1) for z in logits])
    distance = float((unit - unit[0]).norm(dim=2).max())
    classes = torch.stack([z.argmax(1) for z in logits])
    changed = int((classes != classes[0]).any(0).sum())
    failed = not distance <= _DISTANCE or changed > 0
    source = source_of_change(context, index) if failed else None
    fault = "the logits differ from call to call, and not because of noise: the model keeps state"
    remedy = "reset all membrane potentials at the start of every forward pass; see S1"
    if source == "noise":
        fault = (
            "the model is random but does not declare it: its chance errors count as successes of "
            "the attack, and its noise hides the gradient"
        )
        remedy = (
            "give it an attribute stochastic = True, so that inputs are scored on fresh draws and "
            "gradients are averaged over draws (EoT)"
        )
    return judged(
        failed=failed,
        measured=f"{_FORWARDS} forward passes differ by {distance:.2g} at most; {changed} of "
        f"{len(index)} samples change class",
        threshold=f"normalised logits within {_DISTANCE:g}, and no class changes",
        sound="the same input always gets the same logits",
        fault=fault,
        remedy=remedy,
        evidence={"distance": distance, "changed_class": changed, "source": source},
    )


def _averaged(context: Context) -> CheckOutcome:
    """Compare PGD along the gradient of one draw with PGD along the mean of several."""
    one, several = (context.attacked(context.pgd(gradient=g)) for g in (Backprop(), None))
    single, mean = one.accuracy, several.accuracy
    gap = context.gap(one.right, several.right)
    return judged(
        failed=gap.above(LUCK),
        measured=f"random; PGD leaves {percent(single)} with 1 draw per step, {percent(mean)} with "
        f"{EOT}; lower by {gap}, n = {len(context)}",
        threshold=f"{EOT} draws lower accuracy by at most {percent(LUCK)}",
        sound=f"the noise does not hide the gradient: {EOT} draws per step find no more than one",
        fault=f"the noise hides the gradient: with {EOT} draws per step PGD leaves {percent(mean)} "
        f"instead of {percent(single)}",
        remedy="use EoT: average the gradient over draws (eot=8 or more) in every attack",
        evidence={"one_draw": single, "eot": mean, "draws": EOT},
    )


def enough_draws(context: Context) -> CheckOutcome:
    """Twice as many noise draws change nothing, and success holds on fresh draws.

    Every attack of the audit averages the gradient over some draws. PGD with twice as many must not
    be clearly stronger. Its adversarial inputs are then scored again on fresh draws and must leave
    the same accuracy: an attack that keeps inputs misclassified on one draw counts chance errors.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); AutoAttack's issues on random
    defences.
    """
    if not context.stochastic:
        return does_not_apply("the model declares no noise")
    once = context.attacked(context.pgd())
    double = context.attacked(context.pgd(gradient=EoT(2 * EOT, Backprop())))
    fresh = context.scored(once.x_adv, "fresh")
    twice, again = double.accuracy, float(fresh.mean())
    lower, higher = context.gap(once.right, double.right), context.gap(fresh, once.right)
    weak = lower.above(LUCK)
    return judged(
        failed=worst_of(weak, higher.above(LUCK)),
        measured=f"PGD leaves {percent(once.accuracy)} with {EOT} draws per step, {percent(twice)} "
        f"with {2 * EOT}; {percent(again)} on fresh draws; lower by {lower} and "
        f"higher by {higher}, n = {len(context)}",
        threshold=f"{2 * EOT} draws lower accuracy, and fresh draws raise it, by at most "
        f"{percent(LUCK)}",
        sound="the noise neither hides the gradient nor makes the attack look stronger",
        fault=f"with {2 * EOT} draws per step PGD leaves {percent(twice)} instead of "
        f"{percent(once.accuracy)}: too few draws hide the gradient"
        if weak
        else f"on fresh draws {percent(again)} are correct where {percent(once.accuracy)} were "
        "counted: chance errors counted as successes",
        remedy="average the gradient over more draws (eot=16 or more), and score every adversarial "
        "input on fresh draws",
        evidence={"draws": EOT, "accuracy": once.accuracy, "twice": twice, "fresh": again},
    )

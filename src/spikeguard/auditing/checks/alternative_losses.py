"""Does another loss, or a target class, find more than the cross-entropy? Checks G13, G14."""

from __future__ import annotations

from spikeguard.attacks.losses import dlr, margin
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.tolerances import LUCK, percent, worst_of

__all__ = ["other_losses_find_no_more", "targets_find_no_more"]

_TARGETS = 9
_SAMPLES = 50
_STEPS = 20


def other_losses_find_no_more(context: Context) -> CheckOutcome:
    """The loss does not decide the result.

    PGD maximises the cross-entropy, the margin and the difference of logits ratio (DLR) from the
    same starts. If the cross-entropy is far weaker, it is saturated: its gradient underflows.

    Source: Croce and Hein, 2020 (arXiv:2003.01690); Tramèr et al., 2020 (arXiv:2002.08347).
    """
    own = context.attacked(context.pgd())
    others = {
        "the margin": context.attacked(context.pgd(loss=margin)),
        "the ratio of logits": context.attacked(context.pgd(loss=dlr)),
    }
    worst = float(context.worst([own, *others.values()]).mean())
    best = min(others, key=lambda name: others[name].accuracy)
    least = others[best].accuracy
    gaps = {name: context.gap(own.right, other.right) for name, other in others.items()}
    return judged(
        failed=worst_of(*(gap.above(LUCK) for gap in gaps.values())),
        measured=f"PGD leaves {percent(own.accuracy)} with the cross-entropy, "
        + ", ".join(f"{percent(o.accuracy)} with {name}" for name, o in others.items())
        + f"; per-sample worst {percent(worst)}; lower by {gaps[best]}, n = {len(context)}",
        threshold=f"no other loss lower by more than {percent(LUCK)}",
        sound="the loss does not decide the result",
        fault=f"with {best} as its loss PGD leaves {percent(least)} instead of "
        f"{percent(own.accuracy)}: the number is an artefact of the loss",
        remedy=f"attack with {best} as well, and report the per-sample worst",
        evidence={
            "cross_entropy": own.accuracy,
            "others": {name: outcome.accuracy for name, outcome in others.items()},
            "worst": worst,
        },
    )


def targets_find_no_more(context: Context) -> CheckOutcome:
    """Targeted attacks find no more than as many untargeted restarts.

    Two attacks run: APGD-T with one search for each of up to 9 target classes, and APGD with the
    reported loss and as many restarts.

    Source: Carlini et al., 2019 (arXiv:1902.06705); Croce and Hein, 2020 (arXiv:2003.01690).
    """
    some = context.first(max(_SAMPLES, len(context) // 2))
    tries, gradient = min(_TARGETS, context.classes - 1), context.gradient()
    reference = context.reference()
    loss = getattr(reference, "loss", dlr)
    free = APGD(context.threat, steps=_STEPS, restarts=tries, loss=loss, gradient=gradient)
    aimed = APGD(context.threat, steps=_STEPS, targets=tries, gradient=gradient)
    without, with_target = some.attacked(free), some.attacked(aimed)
    untargeted, targeted = without.accuracy, with_target.accuracy
    gap = some.gap(without.right, with_target.right)
    return judged(
        failed=gap.above(LUCK),
        measured=f"targeted {percent(targeted)}, untargeted {percent(untargeted)} left after "
        f"{tries} searches each of {len(some)} samples; lower by {gap}",
        threshold=f"targeted not lower by more than {percent(LUCK)}",
        sound="targeted and untargeted attacks agree",
        fault=f"with a target the attack leaves {percent(targeted)}, without one "
        f"{percent(untargeted)}: the untargeted loss misleads it",
        remedy="report targeted attacks as well (APGD with targets=9)",
        evidence={"targeted": targeted, "untargeted": untargeted, "tries": tries},
    )

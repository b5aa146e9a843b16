"""S11: are there enough noise draws, in the gradient and in the score?"""

from __future__ import annotations

from spikeguard.attacks import (Backprop, EoT)
from spikeguard.auditing.check import (does_not_apply, judged)
from spikeguard.auditing.context import (EOT, Context)
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.tolerances import (half_width, percent)
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.rng import key

__all__ = ["enough_draws"]


def enough_draws(context: Context) -> Finding:
    """Twice as many noise draws change nothing, and success holds on fresh draws.

    Every attack of the audit averages the gradient over some draws. PGD with twice as many must not
    be clearly stronger. Its adversarial inputs are then scored again on draws that nobody has seen,
    and must do as well as when they were counted: an attack that keeps what one draw got wrong
    counts chance errors.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); AutoAttack's issues on random
    defences.
    """
    if not context.stochastic:
        return does_not_apply("S11", enough_draws, "the model says that it has no noise")
    once = context.attacked(context.pgd())
    twice = context.attacked(context.pgd(gradient=EoT(2 * EOT, Backprop()))).accuracy
    again = float(
        evaluate(
            context.model,
            (once.x_adv, context.y),
            {},
            seed=key(context.seed, "audit", "fresh"),
            batch_size=context.batch_size,
        )
        .outcomes["clean"]
        .mean()
    )
    room = half_width(once.accuracy, len(context))
    weak, lucky = twice < once.accuracy - room, again > once.accuracy + room
    return judged(
        "S11",
        enough_draws,
        failed=weak or lucky,
        measured=f"PGD leaves {percent(once.accuracy)} with {EOT} draws a step, {percent(twice)} "
        f"with {2 * EOT}; {percent(again)} on fresh draws",
        threshold=f"{2 * EOT} draws lower accuracy, and fresh draws raise it, by at most "
        f"{100 * room:.1f} points",
        sound="the noise neither hides the gradient nor makes the attack look stronger",
        fault=f"with {2 * EOT} draws a step PGD leaves {percent(twice)} instead of "
        f"{percent(once.accuracy)}: too few draws hide the gradient"
        if weak
        else f"on fresh draws {percent(again)} are right where {percent(once.accuracy)} were "
        "counted: chance errors were taken for successes",
        remedy="average the gradient over more draws (eot=16 or more), and score every adversarial "
        "input on fresh draws",
        evidence={"draws": EOT, "accuracy": once.accuracy, "twice": twice, "fresh": again},
    )

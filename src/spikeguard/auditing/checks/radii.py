"""Does accuracy fall as eps grows? Checks G5, G6, G7."""

from __future__ import annotations

from itertools import pairwise

from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.attack_variants import far
from spikeguard.auditing.tolerances import LUCK, percent, worst_of

__all__ = ["eps_half_gives_chance", "accuracy_falls_with_eps", "unbounded_attack_succeeds"]

_REMEDY = "repair the attack first: wider surrogates, more steps, another loss"


def unbounded_attack_succeeds(context: Context) -> CheckOutcome:
    """An unbounded attack leaves no sample correct.

    With eps 1 the attack may produce any image, so a sample that stays correct shows a failing
    attack. PGD starts from the clean image, where the gradient may be hidden. For an L2 threat the
    radius is multiplied by sqrt(d), for L1 by d, so that the ball contains the same images. A few
    steps of PGD do not cross an L1 ball; there APGD runs from a random start.

    Source: Carlini et al., 2019 (arXiv:1902.06705); Athalye, Carlini and Wagner, 2018
    (arXiv:1802.00420); Pintor et al., 2022 (arXiv:2106.09947).
    """
    eps, n = context.reach, len(context)
    left = far(context, eps)
    some = context.share(left * n)
    return judged(
        failed=some.above(LUCK),
        measured=f"{some} left of {n} at eps {eps:.4g}",
        threshold=f"at most {percent(LUCK)}",
        sound="an unbounded attack succeeds",
        fault=f"{percent(left)} of the images stay correct under an unbounded attack, so the "
        "attack fails at small eps as well",
        remedy=_REMEDY,
        evidence={"eps": eps, "accuracy": left},
    )


def eps_half_gives_chance(context: Context) -> CheckOutcome:
    """An attack that can turn every image grey leaves no more than chance.

    With eps 1/2 every image can become the same grey image, on which no model is better than
    chance.

    Source: Carlini et al., 2019 (arXiv:1902.06705).
    """
    eps, n, chance = context.reach / 2, len(context), 1 / context.classes
    left = far(context, eps)
    some = context.share(left * n)
    return judged(
        failed=some.above(chance + LUCK),
        measured=f"{some} left of {n} at eps {eps:.4g}",
        threshold=f"at most chance, {percent(chance)}, and {percent(LUCK)} more",
        sound="if all images can be made equal, the attack reduces the model to chance",
        fault=f"{percent(left)} stay correct under an attack that can turn every image grey, where "
        f"{percent(chance)} is chance: the attack fails",
        remedy=_REMEDY,
        evidence={"eps": eps, "accuracy": left, "chance": chance},
    )


def accuracy_falls_with_eps(context: Context) -> CheckOutcome:
    """Accuracy does not rise with eps.

    An adversarial input in a small ball is also in a larger one. PGD at eps/2, eps and 2 eps starts
    anew each time, so it can lose a few samples by luck, but not more than chance explains.

    Source: Carlini et al., 2019 (arXiv:1902.06705); Athalye, Carlini and Wagner, 2018
    (arXiv:1802.00420).
    """
    eps = context.threat.eps
    radii = [e for e in (eps / 2, eps, 2 * eps) if e <= context.reach]
    made = {e: context.attacked(context.pgd(eps=e)) for e in radii}
    curve = {e: out.accuracy for e, out in made.items()}
    rises = {pair: context.gap(made[pair[1]].right, made[pair[0]].right) for pair in pairwise(made)}
    low, high = max(rises, key=lambda pair: rises[pair].value, default=(eps, eps))
    most = rises.get((low, high))
    return judged(
        failed=worst_of(*(rise.above(LUCK) for rise in rises.values())),
        measured=", ".join(f"{percent(right)} at eps {e:.4g}" for e, right in curve.items())
        + (f"; it rises by {most} at most, n = {len(context)}" if most else ""),
        threshold=f"no rise by more than {percent(LUCK)}",
        sound="a larger eps makes the attack stronger",
        fault=f"accuracy rises from {percent(curve[low])} at eps {low:.4g} to "
        f"{percent(curve[high])} at {high:.4g}, though every adversarial input of the smaller ball "
        "is in the larger one: the attack is misled",
        remedy="use shorter steps, other surrogates, and start from the smaller ball's results",
        evidence={"curve": [list(point) for point in curve.items()]},
    )

"""Does accuracy fall as eps grows? Checks G5, G6, G7."""

from __future__ import annotations

from itertools import pairwise

from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.attack_variants import far
from spikeguard.auditing.tolerances import exceeds, half_width, percent

__all__ = ["eps_half_gives_chance", "accuracy_falls_with_eps", "unbounded_attack_succeeds"]

_LEFT = 0.01  # share of samples that may stay correct under an unbounded attack
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
    return judged(
        failed=exceeds(left * n, n, _LEFT),
        measured=f"{percent(left)} left at eps {eps:.4g}",
        threshold=f"not above {percent(_LEFT)}",
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
    return judged(
        failed=exceeds(left * n, n, chance),
        measured=f"{percent(left)} left at eps {eps:.4g}",
        threshold=f"not above chance, {percent(chance)}",
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
    eps, n = context.threat.eps, len(context)
    radii = [e for e in (eps / 2, eps, 2 * eps) if e <= context.reach]
    curve = {e: context.attacked(context.pgd(eps=e)).accuracy for e in radii}
    rises = [
        (low, high)
        for low, high in pairwise(curve)
        if curve[high] > curve[low] + half_width(curve[low], n)
    ]
    low, high = rises[0] if rises else (eps, eps)
    return judged(
        failed=bool(rises),
        measured=", ".join(f"{percent(right)} at eps {e:.4g}" for e, right in curve.items()),
        threshold="no rise by more than the interval",
        sound="a larger eps makes the attack stronger",
        fault=f"accuracy rises from {percent(curve[low])} at eps {low:.4g} to "
        f"{percent(curve[high])} at {high:.4g}, though every adversarial input of the smaller ball "
        "is in the larger one: the attack is misled",
        remedy="use shorter steps, other surrogates, and start from the smaller ball's results",
        evidence={"curve": [list(point) for point in curve.items()]},
    )

"""The sequential rule by which checks decide, the limit that most of them use, and percentages.

A check compares a share of samples, a difference of accuracies or a mean with a limit. It fails if
the whole interval lies above the limit and passes if none of it does. If the interval contains the
limit, the check looks at more samples: at n, 2n and 4n, as far as there are images. The looks share
the error rate of 2.5 % for each side of an interval, so at a value that equals the limit at most
5 % of the decisions are false.
"""

from __future__ import annotations

from torch import Tensor

from spikeguard.evaluation.estimates import Estimate, rounded

__all__ = ["LUCK", "ROUNDING", "differs", "fooled_alone", "looks", "percent", "worst_of"]

LUCK = 0.12
"""Limit of the share of samples that a sound network may lose to luck, and of a difference.

Soundly trained spiking networks show up to 6 % (``docs/audit.md``). The limit is twice that, so
that a few hundred samples decide.
"""

ROUNDING = 0.01
"""Share of samples whose result rounding may change: it can flip a spike at the threshold."""

_GROWTH = (1, 2, 4)  # samples of a look, as multiples of the first


def looks(first: int, available: int) -> tuple[int, ...]:
    """Return the numbers of samples at which a check may decide, the first one being the least.

    Example:
        >>> looks(64, 200), looks(64, 50)
        ((64, 128, 200), (50,))
    """
    return tuple(sorted({min(first * growth, available) for growth in _GROWTH}))


def differs(changed: Estimate) -> bool | None:
    """Return whether results that should be equal differ for more samples than rounding explains.

    A share above 1 % is a fault, one of at most 12 % none; None if the interval contains both.
    """
    return changed.low > ROUNDING or changed.above(LUCK)


def worst_of(*above: bool | None) -> bool | None:
    """Return whether one of several limits is exceeded; None if no one is but some are undecided.

    Example:
        >>> worst_of(None, True), worst_of(False, None), worst_of(False, False)
        (True, None, False)
    """
    if any(above):
        return True
    return None if None in above else False


def fooled_alone(right: Tensor, others: Tensor) -> int:
    """Return how many samples one attack fools and the others do not.

    Args:
        right: Share of draws on which each sample is correct under the attack [N].
        others: Share of draws on which each sample is correct under the others [N].
    """
    return int((others - right > 0.5).sum())


def percent(share: float) -> str:
    """Return a share as a percentage with at most one decimal.

    Example:
        >>> percent(0.425), percent(0.6)
        ('42.5 %', '60 %')
    """
    return f"{rounded(share)} %"

"""Warning about a model that classifies no better than guessing."""

from __future__ import annotations

from spikeguard.system.intervals import binomial_tail

__all__ = ["guesses"]

_LEVEL = 0.05
_FEWEST = 20  # images; a sound model can miss half of a few


def guesses(right: float, n: int, classes: int) -> str:
    """Return a warning if an accuracy is not above that of random guesses; else an empty string.

    Guessing gets ``right`` or more of n images with a probability above 5 %. A random guess of one
    of K classes is correct with probability 1 / K.

    Args:
        right: Images that are classified correctly; of a stochastic model, their mean number.
        n: Images. Fewer than 20 give no warning.
        classes: Number of classes K, >= 1.
    """
    count = round(right)
    if n < _FEWEST or classes < 2 or binomial_tail(count, n, 1 / classes) <= _LEVEL:
        return ""
    return (
        f"{100 * right / n:.1f} % of {n} images are classified correctly without an attack, no "
        f"better than guessing among {classes} classes: check the weights, the order of the "
        "classes and the normalisation"
    )

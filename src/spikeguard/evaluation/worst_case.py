"""Worst case of several scored attacks; a noisy model's outcomes are shares of correct draws.

Every input of a noisy model is scored on two sets of draws, the same draws for all inputs of one
sample. The first set chooses each sample's worst input, the second set scores the choice. All
reported numbers are scores of the second set, so that the lowest of several noisy scores is not
reported as an accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["CHOICE", "REPORT", "lowest", "never_rising", "worst_of"]

CHOICE, REPORT = "choice", "report"
"""Names of the two sets of draws."""


def lowest(outcomes: Sequence[Tensor]) -> Tensor:
    """Return the outcomes with the lowest accuracy; of equal ones the first.

    The worst case of several attacks is ``lowest((chosen, *attacks))``, where ``chosen`` is the
    score of each sample's worst input: never above the accuracy under one of the attacks. It is
    unbiased where ``chosen`` is clearly the lowest. Among equally strong attacks it is biased low,
    by the expected minimum of their means, which the common draws keep together.

    Args:
        outcomes: At least one [N], each the shares of correct draws, in [0, 1].
    """
    return min(outcomes, key=lambda outcome: float(outcome.double().mean()))


def never_rising(rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return, for each row of a cascade, the :func:`lowest` of this row and all rows before it.

    A noisy choice can replace an input by one that is correct more often. An attacker keeps what
    worked: a row that is above an earlier one is that earlier one.

    Args:
        rows: Outcomes [N] after each attack, the first without an attack.
    """
    kept: dict[str, Tensor] = {}
    for name, row in rows.items():
        kept[name] = lowest([*list(kept.values())[-1:], row]).clone()
    return kept


def worst_of(
    outcomes: Sequence[Tensor],
    points: Sequence[Tensor | None],
    x: Tensor,
    score: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the per-sample worst of several attacks, the mean never above that of one alone [N].

    Args:
        outcomes: At least one [M], each on the first M of N samples; a longer one is cut.
        points: Their inputs [M, ...]; None: unknown, and the clean input stands for them.
        x: Clean inputs [N, ...].
        score: ``inputs [N, ...] -> shares [N]`` on fresh draws, for a stochastic model: the least
            of several noisy shares is too low, so the choice is scored again.
    """
    rights = torch.ones(len(outcomes), len(x), dtype=torch.float64)
    for row, outcome in zip(rights, outcomes, strict=True):
        row[: len(outcome)] = outcome[: len(x)]
    least, which = rights.min(0)
    if score is None:
        return least
    chosen = x.clone()
    for place, found in enumerate(points):
        rows = (which == place).nonzero()[:, 0]
        rows = rows[rows < len(outcomes[place])]
        if found is not None:
            chosen[rows.to(x.device)] = found[rows.to(found.device)].to(chosen)
    whole = [row for row, outcome in zip(rights, outcomes, strict=True) if len(outcome) >= len(x)]
    return lowest([score(chosen), *whole])

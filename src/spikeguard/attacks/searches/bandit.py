"""Bandit: chooses the next search of a portfolio by what each has fooled per gradient so far."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

__all__ = ["Bandit"]

_UNIT = 300.0  # gradients per sample to which an expected share refers
_KEPT = 0.25  # weight of the last use of a search once it is used again


@dataclass
class Bandit:
    r"""Deterministic choice among searches whose yields fall while the easy samples leave.

    The index of search a is

    .. math:: i_a = \frac{f_a + e_a / (1 + k_a)}{c_a + 300}

    with f the shares of the remaining samples that its uses fooled, c the gradients per sample that
    they cost, both weighted by 0.25 for every later use; e the share expected of a first use; and k
    the number of uses. The largest index is next. A search that fools nothing is thus used ever
    less often, and no search is left out for ever.

    Attributes:
        expected: e of each search, by name.
        uses: k of each search.
        fooled: f of each search.
        costs: c of each search.
    """

    expected: Mapping[str, float]
    uses: dict[str, int] = field(default_factory=dict)
    fooled: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.expected:
            self.uses.setdefault(name, 0)
            self.fooled.setdefault(name, 0.0)
            self.costs.setdefault(name, 0.0)

    def index(self, name: str) -> float:
        """Return the index of a search."""
        hope = self.expected[name] / (1 + self.uses[name])
        return (self.fooled[name] + hope) / (self.costs[name] + _UNIT)

    def choose(self, allowed: Collection[str]) -> str:
        """Return the search of the largest index; the first in the portfolio's order on a tie."""
        return max((name for name in self.expected if name in allowed), key=self.index)

    def update(self, name: str, share: float, cost: float) -> None:
        """Record one use: the share of the remaining samples it fooled, at what cost each."""
        self.uses[name] += 1
        self.fooled[name] = _KEPT * self.fooled[name] + share
        self.costs[name] = _KEPT * self.costs[name] + cost

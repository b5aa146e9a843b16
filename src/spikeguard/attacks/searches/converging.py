"""Converging: searches in turn, the most productive next, until no more samples fall."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spikeguard.attacks.model_access import (
    DEFAULT_DRAWS,
    classify,
    draws_under_attack,
    evaluating,
    is_stochastic,
)
from spikeguard.attacks.searches.active_set import Judge
from spikeguard.attacks.searches.bandit import Bandit
from spikeguard.attacks.searches.noisy_portfolio import noisy_portfolio
from spikeguard.attacks.searches.portfolio import Entry, needed, portfolio
from spikeguard.attacks.searches.search_rounds import SearchRounds
from spikeguard.attacks.searches.search_state import SearchState
from spikeguard.attacks.suitability import suitable
from spikeguard.attacks.threat import Threat
from spikeguard.rng import Randomness, SampleStreams, randomness

__all__ = ["CHOICE_DRAWS", "Converging"]

CHOICE_DRAWS = 4  # times the draws of a score: among many points some are lucky on a few draws

_FLAT_FACTOR = 10
_FLAT_SHARE = 0.01
_FIRST = 300  # gradients per sample; a curve is flat at the earliest after ten times as many
_FOCUS = 3  # most searches are on a third of the samples, those with the lowest margins
_WHOLE = 4  # of so many gradient searches the first is on all samples
_CLIMB = "climb"

FLAT, SPENT, NONE_LEFT = "the curve is flat", "the budget is spent", "no sample is left"


@dataclass(frozen=True)
class Converging:
    r"""Searches of a portfolio in turn, each on the samples that are left, until the curve is flat.

    The next search is the one that has fooled the largest share of the remaining samples per
    gradient lately (``Bandit``). A search becomes longer as more is spent. A fooled sample is not
    searched in later rounds. Samples of low margin fall first, so three of four gradient searches,
    and most climbs, are on the third of the samples with the lowest margins seen so far. The search
    ends

    * when no sample is left;
    * when ``budget`` gradients were spent per sample left;
    * when the curve is flat: every search was used, at least 3,000 gradients were spent per sample
      left, and the last nine tenths of them fooled at most 1 % of the samples.

    With noise in the model a sample leaves when all its scored draws are wrong, and the portfolio
    is ``noisy_portfolio``.

    Args:
        threat: The set the adversary may use.
        budget: Gradients per sample left, on average, > 0; the last round may exceed it.

    Attributes:
        rules: Number of the present portfolio and rules. A stored search of other rules is not
            continued.

    Raises:
        ValueError: If the budget is not positive, or the threat set is on events.
    """

    threat: Threat
    budget: float = 100_000
    rules: int = field(default=2, init=False)

    exempt_from = frozenset({"linear_optimum", "moves_far", "moves_in_l1"})

    def __post_init__(self) -> None:
        if not 0 < self.budget < math.inf:
            raise ValueError(f"Converging: budget counts gradients, > 0, got {self.budget:g}.")
        if getattr(self.threat, "events", False):
            raise ValueError(
                f"Converging: defined for images, got {self.threat}; use the suite events."
            )

    @property
    def cost(self) -> float:
        """Gradient evaluations per sample that is never fooled."""
        return self.budget

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, *, generator: Randomness | None = None
    ) -> Tensor:
        """Return adversarial inputs shaped like ``x``; ``model`` is left unchanged."""
        streams = SampleStreams.of(generator, len(x))
        draws = CHOICE_DRAWS * DEFAULT_DRAWS if is_stochastic(model) else 1

        @torch.no_grad()
        def judge(points: Tensor, rows: Tensor) -> Tensor:
            labels, noise = y[rows.to(y.device)], streams.fork("judge").take(rows)
            with evaluating(model), randomness(model, noise):
                right = [classify(model, points, labels).argmax(1) == labels for _ in range(draws)]
            return torch.stack(right).double().mean(0).cpu()

        start = SearchState.of(x, judge(x, torch.arange(len(x))))
        return self.run(model, x, y, start, streams, batch_size=len(x), judge=judge).points

    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        state: SearchState,
        streams: SampleStreams,
        *,
        batch_size: int,
        judge: Judge,
        after_round: Callable[[SearchState], None] | None = None,
    ) -> SearchState:
        """Run rounds until a rule ends the search.

        Args:
            model: The classifier.
            x: Inputs [N, ...]; the choice of searches depends on all of them.
            y: Labels [N].
            state: The state to continue; it is changed.
            streams: A stream for each sample.
            batch_size: Samples at once; results do not depend on it.
            judge: ``(points [B, ...], rows [B]) -> share of correct draws [B]``; 0 is fooled.
            after_round: Called after each round, to save the state.
        """
        entries = _entries(self.threat, model, x[:1])
        bandit = _bandit(entries, state)
        rounds = SearchRounds(model, x, y, state, streams, batch_size, judge)
        while not state.ended:
            state.ended = self._ended(state, bandit)
            if state.ended:
                break
            climbed = bool(state.rounds) and state.rounds[-1].search == _CLIMB
            starts = not climbed and len(rounds.seen())
            name = bandit.choose(set(entries) if starts else set(entries) - {_CLIMB})
            before = state.left
            attack = entries[name].build(bandit.uses[name], state.spent)
            made = rounds.run(name, attack, _part(name, state))
            bandit.update(name, made.fooled / before, made.cost)
            if after_round is not None:
                after_round(state)
        return state

    def remaining(self, state: SearchState) -> float:
        """Return the gradients until the curve is flat, if no further sample falls."""
        if state.ended:
            return 0.0
        found = max((r.spent for r in state.rounds if r.fooled), default=0.0)
        end = min(self.budget, max(found, _FIRST) * _FLAT_FACTOR)
        return max(0.0, end - state.spent) * int((state.right > 0).sum())

    def _ended(self, state: SearchState, bandit: Bandit) -> str:
        """Return the rule that ends the search now, or an empty string."""
        if not bool(state.right.any()):
            return NONE_LEFT
        spent = state.spent
        if spent >= self.budget:
            return SPENT
        lately = sum(r.fooled for r in state.rounds if r.spent > spent / _FLAT_FACTOR)
        tried = all(bandit.uses.values()) and spent >= _FIRST * _FLAT_FACTOR
        return FLAT if tried and lately <= _FLAT_SHARE * len(state.right) else ""


def _entries(threat: Threat, model: nn.Module, example: Tensor) -> dict[str, Entry]:
    """Return the searches that apply to a model."""
    entries = (noisy_portfolio if draws_under_attack(model) else portfolio)(threat)
    kept, _ = suitable({n: entry.build(0, 0.0) for n, entry in entries.items()}, model, example)
    return needed({name: entries[name] for name in kept})


def _part(name: str, state: SearchState) -> int:
    """Return 1 for a search of all samples, k to search the k-th part with the lowest margins.

    A climb is on all samples after a search of all, but for the first.
    """
    searches = sum(each.search != _CLIMB for each in state.rounds)
    last = searches - 1 if name == _CLIMB else searches
    return _FOCUS if last % _WHOLE or (name == _CLIMB and not last) else 1


def _bandit(entries: Mapping[str, Entry], state: SearchState) -> Bandit:
    """Return the bandit after the rounds that were run."""
    bandit = Bandit({name: entry.expected for name, entry in entries.items()})
    before = state.start
    for each in state.rounds:
        bandit.update(each.search, each.fooled / before, each.cost)
        before = each.left
    return bandit

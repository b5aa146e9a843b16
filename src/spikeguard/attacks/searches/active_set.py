"""The active set: a search whose batch drops misclassified samples and refills from a queue.

A plain batch search runs every sample through all steps of all restarts, although most samples are
fooled early. Here a fooled sample leaves the batch at once and the next one in the queue takes its
place. The result of a sample does not depend on the other samples.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.base import BACKPROP, is_adaptive, start_search
from spikeguard.attacks.losses import Loss, margin
from spikeguard.attacks.model_access import crafting, frozen
from spikeguard.rng import SampleStreams

__all__ = ["Judge", "Nearest", "State", "Step", "Stepwise", "Watch", "active_set", "can_step"]

State = dict[str, Tensor]
Judge = Callable[[Tensor, Tensor], Tensor]

_ROW, _ROUND, _BEFORE, _POINT, _RESULT, _OVER, _CLAIM = OWN = (
    *(".row", ".round", ".before", ".point", ".result", ".over", ".claim"),
)


@dataclass(frozen=True)
class Step:
    """The result of one step of a search; the sample axis comes first everywhere.

    Attributes:
        state: State of the search after the step.
        seen: The points whose logits the step computed, shaped like the inputs.
        fooled: Whether the model misclassified them [B].
        result: The points to return if the search ends here, shaped like the inputs.
        over: Whether the search ends here [B].
        margin: How clearly the model was right at ``seen``: the logit of the true class minus the
            largest other one [B]; None where the search does not look.
    """

    state: State
    seen: Tensor
    fooled: Tensor
    result: Tensor
    over: Tensor
    margin: Tensor | None = None


class Stepwise(Attack, Protocol):
    """An attack that can also be run step by step, with samples at different steps in one batch.

    Its whole state is in tensors whose first axis is the samples, so that rows can be removed and
    added. No row may depend on another. A search that draws random numbers in every step keeps one
    number per sample, ``name = streams.bits([B], dim=0)``, and draws from
    ``SampleStreams(0, name + step)``, so that samples may be at different steps.
    """

    @property
    def rounds(self) -> int:
        """Largest number of searches per sample, >= 1; the next one runs if none has succeeded."""

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the initial state of the search of a round, counted from 0.

        In every round ``streams`` are at the position in which the attack's call receives them.
        """

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""


@runtime_checkable
class _Movable(Protocol):
    """An adaptive gradient whose state is per sample, so that it can follow a changing batch."""

    def follows_rows(self, model: nn.Module) -> bool:
        """Whether the state of every layer of this model is per sample."""


@runtime_checkable
class _Following(Protocol):
    """The state of such a gradient in one search, from its ``begin``."""

    def rearrange(self, rows: Tensor) -> None:
        """Move to the rows of a new batch: the former row of each sample, or -1 [B]."""


class Watch:
    """A loss that records which samples its logits misclassify, and by how much.

    The forward pass of a gradient thus also shows whether its point fools the model.
    """

    def __init__(self, loss: Loss):
        self.loss = loss
        self.logits: Tensor | None = None

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the losses [B]."""
        self.logits = logits.detach()
        return self.loss(logits, y)

    def outcome(self, y: Tensor) -> Tensor:
        """Return which samples were misclassified [B]; none if the loss was never called."""
        if self.logits is None:
            return torch.zeros_like(y, dtype=torch.bool)
        return self.logits.argmax(1) != y

    def margin(self, y: Tensor) -> Tensor:
        """Return by how much each true class led [B]; infinite if the loss was never called."""
        if self.logits is None:
            return torch.full_like(y, torch.inf, dtype=torch.float32)
        return -margin(self.logits, y)


def can_step(attack: Attack, model: nn.Module) -> TypeGuard[Stepwise]:
    """Whether an attack can be run step by step against a model, with the same result.

    This is false for a model that draws noise inside an attack, because one draw does not decide
    whether it is fooled; for a subclass that overrides the attack's call; and for a gradient that
    keeps state from step to step, unless the state is per sample: its ``follows_rows(model)`` is
    true, and what its ``begin()`` returns has a method ``rearrange``.
    """
    gradient = getattr(attack, "gradient", BACKPROP)
    follows = isinstance(gradient, _Movable) and gradient.follows_rows(model)
    if is_adaptive(gradient) and not follows:
        return False
    owner = next((kind for kind in type(attack).__mro__ if "__call__" in vars(kind)), object)
    with frozen(model):
        noisy = any(getattr(module, "stochastic", False) for module in model.modules())
    return not noisy and {"begin", "step"} <= vars(owner).keys()


@dataclass
class Nearest:
    """For each sample the point of lowest margin that the searches have seen so far.

    Attributes:
        points: The points [N, ...].
        margin: Logit of the true class minus the largest other one at that point [N], on the CPU;
            infinite where nothing was seen.
        fooled_at: CPU time of the process, in seconds, when a point of negative margin was last
            seen [N], on the CPU; infinite where none was.
    """

    points: Tensor
    margin: Tensor
    fooled_at: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.fooled_at = torch.full((len(self.margin),), torch.inf, dtype=torch.float64)

    @classmethod
    def of(cls, x: Tensor) -> Nearest:
        """Return a record of nothing seen."""
        return cls(x.clone(), torch.full((len(x),), torch.inf))

    def see(self, rows: Tensor, points: Tensor, margin: Tensor) -> None:
        """Record points [B, ...] of samples (indices [B] on the CPU) with their margins [B]."""
        margin = margin.detach().to("cpu", self.margin.dtype)
        self.fooled_at[rows[margin < 0]] = time.process_time()
        lower = margin < self.margin[rows]
        if bool(lower.any()):
            self.margin[rows[lower]] = margin[lower]
            self.points[rows[lower]] = points[lower.to(points.device)]


def active_set(
    attack: Stepwise,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    streams: SampleStreams,
    batch_size: int,
    judge: Judge,
    nearest: Nearest | None = None,
) -> tuple[Tensor, Tensor]:
    """Run a search on full batches of samples that are not fooled yet.

    A sample that is fooled in a step submits that point; other samples submit the final result of
    their search. The judge scores submitted points in batches, and its verdict is final: a sample
    that it finds correctly classified continues its search, or starts the next round.

    Args:
        attack: The search.
        model: A classifier for which ``can_step`` holds; it is left unchanged.
        x: Inputs [N, ...] in [0, 1].
        y: Labels [N].
        streams: A stream for each of the N samples, used as in the attack's own call.
        batch_size: Samples searched or judged at once, >= 1; results do not depend on it.
        judge: ``(points [B, ...], rows [B]) -> share of correct draws [B]``, where rows are indices
            into ``x`` on the CPU; 0 is fooled.
        nearest: Records the points of lowest margin, if the search reports margins.

    Returns:
        For each sample the point that was judged last, and its share of correct draws, on the CPU.
    """
    return _ActiveSet(attack, model, x, y, streams, batch_size, judge, nearest).run()


class _ActiveSet:
    """Scheduler of the active set.

    Each sample is in the queue, in the batch, waiting for the judge, or back from the judge to
    continue its search.
    """

    def __init__(
        self,
        attack: Stepwise,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        streams: SampleStreams,
        batch_size: int,
        judge: Judge,
        nearest: Nearest | None,
    ):
        self.model, self.x, self.y = model, x, y
        self.streams, self.batch_size, self.judge = streams, batch_size, judge
        self.nearest = nearest
        gradient = getattr(attack, "gradient", BACKPROP)
        self.attack = attack
        self.gradient: object = None
        if is_adaptive(gradient):
            self.gradient = start_search(gradient)
            self.attack = replace(attack, gradient=self.gradient)  # type: ignore[type-var]
        self.queue = deque((row, 0) for row in range(len(x)))
        self.batch: State = {}
        self.waiting: State = {}
        self.back: State = {}
        self.found = x.clone()
        self.right = torch.ones(len(x), dtype=torch.float64)
        self.last = 0  # samples in the last step

    def run(self) -> tuple[Tensor, Tensor]:
        while self.searching or _size(self.waiting):
            with crafting(self.model, self.x, self.y, self.streams) as streams:
                while not self.judge_due():
                    self.refill(streams)
                    self.step()
            self.score()  # outside the block: scores are not computed in attack mode
        return self.found, self.right

    @property
    def searching(self) -> int:
        """Number of samples being searched or ready to be."""
        return len(self.queue) + _size(self.batch) + _size(self.back)

    def judge_due(self) -> bool:
        """Whether to score now: a full batch is waiting, or too few samples are left to search."""
        if _size(self.waiting) >= self.batch_size or not self.searching:
            return True
        if self.searching >= self.batch_size or not _size(self.waiting):
            return False
        last = self.waiting[_ROUND] + 1 >= self.attack.rounds
        return bool((self.waiting[_OVER] & ~last).any())  # these may start another round

    def refill(self, streams: SampleStreams) -> None:
        """Fill the batch: first with samples that continue, then from the queue."""
        free = self.batch_size - _size(self.batch)
        here = torch.arange(_size(self.back)) < free
        self.batch = _join(self.batch, _take(self.back, here))
        self.back = _take(self.back, ~here)
        free = self.batch_size - _size(self.batch)
        coming = [self.queue.popleft() for _ in range(min(free, len(self.queue)))]
        for round_ in sorted({round_ for _, round_ in coming}):
            rows = torch.tensor([row for row, its in coming if its == round_])
            state = self.attack.begin(self.x[rows], self.y[rows], streams.take(rows), round_)
            assert not state.keys() & set(OWN)
            own = {_ROW: rows, _ROUND: torch.full_like(rows, round_)}
            own[_BEFORE] = torch.full_like(rows, -1)
            self.batch = _join(self.batch, {**state, **own})

    def step(self) -> None:
        """Take one step; move samples that are fooled or finished to the judge's waiting list."""
        rows, before = self.batch[_ROW], self.batch[_BEFORE]
        moved = not torch.equal(before, torch.arange(self.last))
        if moved and isinstance(self.gradient, _Following):
            self.gradient.rearrange(before)
        self.last = len(rows)
        own = {name: self.batch[name] for name in (_ROW, _ROUND)}
        state = {name: part for name, part in self.batch.items() if name not in OWN}
        made = self.attack.step(self.model, self.x[rows], self.y[rows], state)
        own[_BEFORE] = torch.arange(len(rows))
        if self.nearest is not None and made.margin is not None:
            self.nearest.see(rows, made.seen, made.margin)
        claim, over = made.fooled.cpu(), made.over.cpu()
        point = torch.where(_rows(made.fooled, self.x), made.seen, made.result)
        asks = {_POINT: point, _RESULT: made.result, _OVER: over, _CLAIM: claim}
        leaves = claim | over
        self.waiting = _join(self.waiting, _take({**made.state, **own, **asks}, leaves))
        self.batch = _take({**made.state, **own}, ~leaves)

    def score(self) -> None:
        """Judge up to one batch of waiting samples; those found correct continue their search."""
        first = torch.arange(_size(self.waiting)) < self.batch_size
        part, self.waiting = _take(self.waiting, first), _take(self.waiting, ~first)
        part[_BEFORE] = torch.full_like(part[_BEFORE], -1)  # an adaptive gradient starts afresh
        rows = part[_ROW]
        right = self.judge(part[_POINT], rows).to(self.right)
        self.found[rows], self.right[rows] = part[_POINT], right
        held, over, claim = right > 0, part[_OVER], part[_CLAIM]
        self.back = _join(self.back, _without(_take(part, held & ~over)))
        again = _take(part, held & over & claim)  # the final result is not judged yet
        if again:
            again |= {_POINT: again[_RESULT], _CLAIM: torch.zeros_like(again[_CLAIM])}
            self.waiting = _join(self.waiting, again)
        ended = _take(part, held & over & ~claim)
        if ended:
            pairs = zip(ended[_ROW].tolist(), ended[_ROUND].tolist(), strict=True)
            self.queue.extend((row, r + 1) for row, r in pairs if r + 1 < self.attack.rounds)


def _size(state: State) -> int:
    return len(state[_ROW]) if state else 0


def _take(state: State, which: Tensor) -> State:
    """Return the samples selected by a mask; an empty dictionary if there are none."""
    index = which.nonzero()[:, 0]
    return {name: part[index.to(part.device)] for name, part in state.items()} if len(index) else {}


def _join(one: State, other: State) -> State:
    if not one or not other:
        return one or other
    return {name: torch.cat([part, other[name]]) for name, part in one.items()}


def _without(state: State) -> State:
    """Remove the entries that only waiting samples have."""
    return {k: part for k, part in state.items() if k not in (_POINT, _RESULT, _OVER, _CLAIM)}


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per sample so that it broadcasts against ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))

"""The active set: samples that are fooled leave a search at once, and others take their places.

A search over a batch works on every sample until the last step of the last restart, though most are
fooled early. Here the batch holds only samples that are still searched: whoever is fooled makes
room, and the next in the queue comes in. What happens to a sample depends on nothing but itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.base import BACKPROP, is_adaptive
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import crafting, frozen
from spikeguard.rng import SampleStreams

__all__ = ["Judge", "State", "Step", "Stepwise", "Watch", "active_set", "can_step"]

State = dict[str, Tensor]
Judge = Callable[[Tensor, Tensor], Tensor]

_ROW, _ROUND, _POINT, _RESULT, _OVER, _CLAIM = OWN = (
    *(".row", ".round", ".point", ".result", ".over", ".claim"),
)


@dataclass(frozen=True)
class Step:
    """What one step of a search found out; the sample axis comes first everywhere.

    Attributes:
        state: Where the search stands after the step.
        seen: The points whose logits the step saw, shaped like the inputs.
        fooled: Whether the model was wrong on them [B].
        result: What the search hands in if it ends here, shaped like the inputs.
        over: Whether it ends here [B].
    """

    state: State
    seen: Tensor
    fooled: Tensor
    result: Tensor
    over: Tensor


class Stepwise(Attack, Protocol):
    """An attack that can also be run step by step, with samples at different steps in one batch.

    All it knows about its samples is in tensors whose first axis is the samples, so that rows can
    be taken out and joined. No row may look at another. A search that draws in every step keeps a
    number a sample, ``name = streams.bits([B], dim=0)``, and draws from
    ``SampleStreams(0, name + step)``: samples then need not be at the same step.
    """

    @property
    def rounds(self) -> int:
        """How many searches a sample gets that no search before has fooled, >= 1."""

    def begin(self, x: Tensor, y: Tensor, streams: SampleStreams, round_: int) -> State:
        """Return the state in which the search of a round, counted from 0, begins.

        ``streams`` stand where the attack's own call gets them, in every round.
        """

    def step(self, model: nn.Module, x: Tensor, y: Tensor, state: State) -> Step:
        """Take one step with every sample."""


class Watch:
    """A loss that remembers on which samples the logits it was given are wrong.

    The forward pass of a gradient thus tells for nothing whether its point fools the model.
    """

    def __init__(self, loss: Loss):
        self.loss = loss
        self.fooled: Tensor | None = None

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the losses [B]."""
        self.fooled = logits.detach().argmax(1) != y
        return self.loss(logits, y)

    def outcome(self, y: Tensor) -> Tensor:
        """Return which samples were wrong [B]; none where the loss was never called."""
        return torch.zeros_like(y, dtype=torch.bool) if self.fooled is None else self.fooled


def can_step(attack: Attack, model: nn.Module) -> TypeGuard[Stepwise]:
    """Whether an attack can be run step by step against a model, to the same end.

    Not where the model draws noise inside an attack: one look does not tell whether it is fooled.
    Nor where a subclass changes what the attack does when it is called, or where its gradient
    learns from step to step: that must not mix samples at different steps.
    """
    if is_adaptive(getattr(attack, "gradient", BACKPROP)):
        return False
    owner = next((kind for kind in type(attack).__mro__ if "__call__" in vars(kind)), object)
    with frozen(model):
        noisy = any(getattr(module, "stochastic", False) for module in model.modules())
    return not noisy and {"begin", "step"} <= vars(owner).keys()


def active_set(
    attack: Stepwise,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    streams: SampleStreams,
    batch_size: int,
    judge: Judge,
) -> tuple[Tensor, Tensor]:
    """Run a search with batches that stay full of samples which are not fooled yet.

    A sample that a step saw fooled hands in that point, others what the search ends with. The judge
    scores what is handed in, once a batch of it is together. It has the last word: a sample it
    finds right goes on with its search, or begins the next round.

    Args:
        attack: The search.
        model: A classifier for which ``can_step`` holds; it is left as it was.
        x: Inputs [N, ...] in [0, 1].
        y: Labels [N].
        streams: A stream for each of the N samples; each draws what the attack's own call draws.
        batch_size: Samples searched or judged at once, >= 1; results do not depend on it.
        judge: ``(points [B, ...], rows [B]) -> share of right answers [B]``, rows being places in
            ``x`` on the CPU; 0 is fooled.

    Returns:
        For each sample the point that was judged last, and its share of right answers, on the CPU.
    """
    return _ActiveSet(attack, model, x, y, streams, batch_size, judge).run()


class _ActiveSet:
    """Samples are in the queue, in the batch, waiting for the judge, or back from the judge."""

    def __init__(
        self,
        attack: Stepwise,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        streams: SampleStreams,
        batch_size: int,
        judge: Judge,
    ):
        self.attack, self.model, self.x, self.y = attack, model, x, y
        self.streams, self.batch_size, self.judge = streams, batch_size, judge
        self.queue = deque((row, 0) for row in range(len(x)))
        self.batch: State = {}
        self.waiting: State = {}
        self.back: State = {}
        self.found = x.clone()
        self.right = torch.ones(len(x), dtype=torch.float64)

    def run(self) -> tuple[Tensor, Tensor]:
        while self.searching or _size(self.waiting):
            with crafting(self.model, self.x, self.y, self.streams) as streams:
                while not self.due():
                    self.refill(streams)
                    self.step()
            self.settle()  # outside: scores are not taken inside an attack
        return self.found, self.right

    @property
    def searching(self) -> int:
        """How many samples are searched or could be."""
        return len(self.queue) + _size(self.batch) + _size(self.back)

    def due(self) -> bool:
        """Whether the judge comes now: for a full batch, or before the search runs short."""
        if _size(self.waiting) >= self.batch_size or not self.searching:
            return True
        if self.searching >= self.batch_size or not _size(self.waiting):
            return False
        last = self.waiting[_ROUND] + 1 >= self.attack.rounds
        return bool((self.waiting[_OVER] & ~last).any())  # these may come back

    def refill(self, streams: SampleStreams) -> None:
        """Fill the batch: first with samples that go on, then from the queue."""
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
            self.batch = _join(self.batch, {**state, **own})

    def step(self) -> None:
        """Take one step, and let those who are fooled or at their end wait for the judge."""
        rows = self.batch[_ROW]
        own = {name: self.batch[name] for name in (_ROW, _ROUND)}
        state = {name: part for name, part in self.batch.items() if name not in OWN}
        made = self.attack.step(self.model, self.x[rows], self.y[rows], state)
        claim, over = made.fooled.cpu(), made.over.cpu()
        point = torch.where(_rows(made.fooled, self.x), made.seen, made.result)
        asks = {_POINT: point, _RESULT: made.result, _OVER: over, _CLAIM: claim}
        leaves = claim | over
        self.waiting = _join(self.waiting, _take({**made.state, **own, **asks}, leaves))
        self.batch = _take({**made.state, **own}, ~leaves)

    def settle(self) -> None:
        """Judge up to a batch of those who wait; who is right after all goes on."""
        first = torch.arange(_size(self.waiting)) < self.batch_size
        part, self.waiting = _take(self.waiting, first), _take(self.waiting, ~first)
        rows = part[_ROW]
        right = self.judge(part[_POINT], rows).to(self.right)
        self.found[rows], self.right[rows] = part[_POINT], right
        held, over, claim = right > 0, part[_OVER], part[_CLAIM]
        self.back = _join(self.back, _without(_take(part, held & ~over)))
        again = _take(part, held & over & claim)  # its end was not looked at yet
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
    """Return the samples of a mask; no samples are an empty dictionary."""
    index = which.nonzero()[:, 0]
    return {name: part[index.to(part.device)] for name, part in state.items()} if len(index) else {}


def _join(one: State, other: State) -> State:
    if not one or not other:
        return one or other
    return {name: torch.cat([part, other[name]]) for name, part in one.items()}


def _without(state: State) -> State:
    """Leave out what only those who wait have."""
    return {k: part for k, part in state.items() if k not in (_POINT, _RESULT, _OVER, _CLAIM)}


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """Shape one value a sample so that it goes with ``like``."""
    return values.view(-1, *[1] * (like.ndim - 1))

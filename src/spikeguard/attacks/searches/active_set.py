"""The active set: a search whose batch drops misclassified samples and refills from a queue.

A plain batch search runs every sample through all steps of all restarts, although most samples are
fooled early. Here a fooled sample leaves the batch at once and the next one in the queue takes its
place. The result of a sample does not depend on the other samples.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP, is_adaptive, start_search
from spikeguard.attacks.model_access import crafting
from spikeguard.attacks.searches.nearest import Nearest
from spikeguard.attacks.searches.stepwise import Following, State, Stepwise
from spikeguard.rng import SampleStreams

__all__ = ["Judge", "active_set"]

Judge = Callable[[Tensor, Tensor], Tensor]

_ROW, _ROUND, _BEFORE, _POINT, _RESULT, _OVER, _CLAIM = OWN = (
    *(".row", ".round", ".before", ".point", ".result", ".over", ".claim"),
)


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
        if moved and isinstance(self.gradient, Following):
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

"""The trajectory of a search: the loss at every step, whether it fools, and its best points."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.base import draws_per_step, unwrap
from spikeguard.attacks.gradients.mean_field import MeanField
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout
from spikeguard.attacks.gradients.nes import NES
from spikeguard.attacks.losses import Loss, margin
from spikeguard.attacks.model_access import classify, evaluating
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.attacks.searches.restarts import rows
from spikeguard.auditing.context import Context

__all__ = ["DRAWS", "Walk", "on_fresh_draws", "unseen", "walk"]

DRAWS = 32  # fresh draws on which the points of a noisy search are compared
_LAST = 10  # steps


@dataclass(frozen=True)
class Walk:
    """One search of all samples. For a stochastic model, means over the draws of each step.

    Attributes:
        loss: Loss at every point whose gradient was computed [steps, N].
        right: Share of draws on which that point is classified correctly [steps, N].
        end: Share of draws on which the returned input is classified correctly [N].
        points: For a stochastic model the first point of each sample, the one of highest loss
            before the ``last`` steps, and the one of highest loss [3, N, ...]; else None.
    """

    loss: Tensor
    right: Tensor
    end: Tensor
    points: Tensor | None = None

    @property
    def last(self) -> int:
        """Number of final steps whose gain is judged: ten, or half of a shorter search."""
        return _last(len(self.loss))


class _Recorder:
    """A loss that records its values, whether the logits are correct, and the best points.

    Args:
        loss: The loss to record.
        draws: Calls of a step, one per noise draw.
    """

    def __init__(self, loss: Loss, draws: int):
        self.loss, self.draws = loss, draws
        self.losses: list[Tensor] = []
        self.right: list[Tensor] = []
        self.first: Tensor | None = None
        self.at: Tensor | None = None
        self.best: deque[tuple[Tensor, Tensor]] = deque(maxlen=_LAST + 1)  # after each last step

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = self.loss(logits, y)
        self.losses.append(losses.detach().cpu().double())
        self.right.append((logits.detach().argmax(1) == y).cpu().double())
        if self.at is not None and len(self.losses) % self.draws == 0:
            self._compare(self.at, torch.stack(self.losses[-self.draws :]).mean(0))
        return losses

    def see(self, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Remember the input of the model, as a hook of its forward pass."""
        self.at = inputs[0].detach()

    def points(self) -> Tensor | None:
        """Return the first point and the best ones, see :class:`Walk`; None if none was seen."""
        if self.first is None:
            return None
        last = _last(len(self.losses) // self.draws)
        return torch.stack([self.first, self.best[-1 - last][1], self.best[-1][1]])

    def _compare(self, at: Tensor, loss: Tensor) -> None:
        """Add the better of a step's point and the best one so far, for each sample."""
        here = at.to("cpu", copy=True)
        if self.first is None:
            self.first = here
            self.best.append((loss, here))
            return
        highest, best = self.best[-1]
        better = loss > highest
        kept = torch.where(rows(better, here), here, best)
        self.best.append((torch.maximum(loss, highest), kept))


def unseen(attack: Attack) -> str | None:
    """Return why an attack has no trajectory to judge; None if it has one."""
    if not hasattr(attack, "loss"):
        return "the attack maximises no loss"
    if not hasattr(attack, "gradient"):
        return "the attack uses no gradient"
    if hasattr(attack, "norms"):
        return "the searches on events end at the first grid that fools the model"
    if getattr(attack, "targets", 0) or isinstance(attack, MTPGD):
        return "the attack maximises a different loss for every target"
    if isinstance(attack, APGD) and attack.threat.norm == "l1":
        return "under L1 APGD starts outside the threat set"
    if getattr(attack, "steps", 1) < 2:
        return "the attack takes one step"
    if isinstance(unwrap(attack.gradient), ANNTwin | MeanField | MembraneReadout | NES):
        return (
            "the attack maximises the loss of another function than the model's logits at a point"
        )
    return None


def walk(context: Context, attack: Attack) -> Walk:
    """Return the trajectory of one search of an attack that ``unseen`` allows; cached."""
    if hasattr(attack, "restarts"):
        attack = replace(attack, restarts=1)  # type: ignore[type-var]
    return context.once(f"walk of {attack}", lambda: _walk(context, attack))


def _walk(context: Context, attack: Attack) -> Walk:
    losses, right, found, points = [], [], [], []
    draws = draws_per_step(getattr(attack, "gradient", None))
    for index in context.batches():
        recorder = _Recorder(getattr(attack, "loss", margin), draws)
        hook = context.model.register_forward_pre_hook(recorder.see) if context.stochastic else None
        try:
            with context.searching(index) as (x, y):
                searched: Attack = replace(attack, loss=recorder)  # type: ignore[type-var]
                end = searched(context.model, x, y, generator=context.draws(index, "walk"))
        finally:
            if hook is not None:
                hook.remove()
        losses.append(_means(recorder.losses, draws))
        right.append(_means(recorder.right, draws))
        found.append(end.cpu())
        if (seen := recorder.points()) is not None:
            points.append(seen)
    return Walk(
        torch.cat(losses, 1),
        torch.cat(right, 1),
        context.scored(torch.cat(found), "walk"),
        torch.cat(points, 1) if points else None,
    )


def on_fresh_draws(context: Context, points: Tensor, loss: Loss) -> Tensor:
    """Return the mean loss at several points of each sample over ``DRAWS`` fresh draws [P, N].

    All points of a sample share their draws, so the noise largely cancels in a difference.

    Args:
        context: The stochastic model and its samples.
        points: P points of each sample [P, N, ...].
        loss: Per-sample loss ``(logits, y) -> [B]``.

    Raises:
        AttackError: If the logits are not finite.
    """
    count = len(points)
    found = torch.zeros(count, len(context), dtype=torch.float64)
    for index in context.batches():
        x = points[:, index].flatten(0, 1).to(context.device)
        y = context.y[index].repeat(count).to(context.device)
        for draw in range(DRAWS):
            streams = context.streams(index.repeat(count), f"walk {draw}")
            with evaluating(context.model), streams, torch.no_grad():
                each = loss(classify(context.model, x, y), y)
            found[:, index] += each.cpu().double().view(count, -1) / DRAWS
    return found


def _last(steps: int) -> int:
    return min(_LAST, steps // 2)


def _means(values: list[Tensor], draws: int) -> Tensor:
    """Return one row per step, the mean of its draws."""
    stacked = torch.stack(values[: len(values) // draws * draws])  # drop a final pass without draws
    return stacked.view(-1, draws, stacked.shape[1]).mean(1)

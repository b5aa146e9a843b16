"""The trajectory of a search: at every step the loss and whether the model is fooled."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.base import draws_per_step, unwrap
from spikeguard.attacks.gradients.mean_field import MeanField
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout
from spikeguard.attacks.gradients.nes import NES
from spikeguard.attacks.losses import Loss, margin
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.auditing.context import Context

__all__ = ["Walk", "unseen", "walk"]


@dataclass(frozen=True)
class Walk:
    """One search of all samples. For a stochastic model, means over the draws of each step.

    Attributes:
        loss: Loss at every point whose gradient was computed [steps, N].
        right: Share of draws on which that point is classified correctly [steps, N].
        end: Share of draws on which the returned input is classified correctly [N].
    """

    loss: Tensor
    right: Tensor
    end: Tensor


class _Recorder:
    """A loss that records its values and whether the logits are correct."""

    def __init__(self, loss: Loss):
        self.loss = loss
        self.losses: list[Tensor] = []
        self.right: list[Tensor] = []

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        losses = self.loss(logits, y)
        self.losses.append(losses.detach().cpu().double())
        self.right.append((logits.detach().argmax(1) == y).cpu().double())
        return losses


def unseen(attack: Attack) -> str | None:
    """Return why an attack has no trajectory to judge; None if it has one."""
    if not hasattr(attack, "loss"):
        return "the attack maximises no loss"
    if not hasattr(attack, "gradient"):
        return "the attack uses no gradient"
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
    parts = []
    for index in context.batches():
        recorder = _Recorder(getattr(attack, "loss", margin))
        with context.searching(index) as (x, y):
            searched: Attack = replace(attack, loss=recorder)  # type: ignore[type-var]
            found = searched(context.model, x, y, generator=context.draws(index, "walk")).cpu()
        draws = draws_per_step(getattr(attack, "gradient", None))
        losses, right = (_means(part, draws) for part in (recorder.losses, recorder.right))
        parts.append((losses, right, found))
    return Walk(
        torch.cat([loss for loss, _, _ in parts], 1),
        torch.cat([right for _, right, _ in parts], 1),
        context.scored(torch.cat([found for _, _, found in parts]), "walk"),
    )


def _means(values: list[Tensor], draws: int) -> Tensor:
    """Return one row per step, the mean of its draws."""
    stacked = torch.stack(values[: len(values) // draws * draws])  # drop a final pass without draws
    return stacked.view(-1, draws, stacked.shape[1]).mean(1)

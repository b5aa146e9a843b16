"""Helpers of the searches on events: run a stepwise search, single changes, the best within budget.

A change turns an entry of a binary grid to its other value, or a count by one.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.base import is_adaptive, start_search
from spikeguard.attacks.model_access import is_stochastic
from spikeguard.attacks.searches.restarts import rows, until_fooled
from spikeguard.attacks.threat import Threat
from spikeguard.rng import SampleStreams

__all__ = [
    "allowed",
    "changes",
    "kept",
    "portion",
    "require_norm",
    "require_positive",
    "run_search",
]


def require_norm(attack: Any) -> None:
    """Reject a threat set that the attack is not defined for; see ``norms`` of the attack.

    Raises:
        ValueError: One line that names the sets it is defined for.
    """
    norm, known = attack.threat.norm.partition(" ")[0], attack.norms
    if norm not in known:
        raise ValueError(
            f"{type(attack).__name__}: defined for {' and '.join(known)}, got {norm!r}; write "
            f'--threat "{known[0]} ..." on the command line.'
        )


def require_positive(attack: Any, *names: str) -> None:
    """Reject settings that are no whole number >= 1."""
    for name in names:
        value = getattr(attack, name)
        if type(value) is not int or value < 1:
            kind = type(attack).__name__
            raise ValueError(f"{kind}: {name} is a whole number >= 1, got {value!r}.")


def run_search(
    attack: Any, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams, round_: int = 0
) -> Tensor:
    """Run a round of a stepwise search on a batch, inside ``crafting``.

    The result of a fooled sample is the first point that fools the model, that of others the final
    result of the search. Under noise one draw does not decide, so all are final results.
    """
    search = replace(attack, gradient=start_search(attack.gradient))
    noisy = is_stochastic(model)
    if not noisy and not is_adaptive(attack.gradient):
        return until_fooled(search, model, x, y, streams, round_)
    state = search.begin(x, y, streams, round_)
    found, done = x.detach().clone(), torch.zeros_like(y, dtype=torch.bool)
    while not bool(done.all()):
        made = search.step(model, x, y, state)
        state = made.state
        hit = torch.zeros_like(done) if noisy else made.fooled
        ends = (made.over | hit) & ~done
        found = torch.where(rows(ends, x), torch.where(rows(hit, x), made.seen, made.result), found)
        done |= ends
    return found


def changes(threat: Threat, here: Tensor, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Return the single changes of a point that raise the linearised loss.

    An entry that differs from the clean one is not changed back. Under edits, an event is inserted
    only in a cell without one, and of the two polarities the better one.

    Args:
        threat: Flips, edits or counts.
        here: The point [B, T, C, H, W].
        x: Clean inputs, shaped like it.
        grad: Gradient of the loss at the point.

    Returns:
        The changes, +1 or -1, and their gains: 0 where a change is not allowed or does not help.
    """
    if threat.norm == "counts":
        change = grad.sign()
        allowed = ((here + change) >= 0) & (change * (here - x) >= 0)
    else:
        change = 1 - 2 * here
        allowed = here == x
    gain = torch.where(allowed, grad * change, 0).clamp_min(0)
    if threat.norm == "edits" and x.shape[2] == 2:
        other = gain.flip(2)
        first = torch.tensor([1, 0], device=x.device).view(1, 1, 2, 1, 1).bool()
        better = (gain > other) | ((gain == other) & first)
        free = (here.flip(2) == 0) & better
        gain = torch.where((here > 0) | free, gain, 0)
    return change, gain


def allowed(threat: Threat, most: int, here: Tensor, x: Tensor) -> Tensor:
    """Return how many more changes the budget allows at a point [B], at most ``most``.

    Args:
        threat: Flips, edits or counts.
        most: The largest number returned, >= 0.
        here: The point [B, T, C, H, W].
        x: Clean inputs, shaped like it.
    """
    return (threat.eps - threat.distance(here, x)).long().clamp(max=most)


def portion(threat: Threat, steps: int, here: Tensor, x: Tensor) -> Tensor:
    """Return how many changes a step may make [B]: an equal part of the budget, of what is left.

    So the budget lasts for all steps, and each change is chosen at a point that has the others.

    Args:
        threat: Flips, edits or counts.
        steps: Steps of the search.
        here: The point [B, T, C, H, W].
        x: Clean inputs, shaped like it.
    """
    return allowed(threat, math.ceil(threat.eps / steps), here, x)


def kept(threat: Threat, point: Tensor, x: Tensor, score: Tensor) -> Tensor:
    """Return the point of a threat set with the changes of highest score.

    Args:
        threat: Flips or edits.
        point: A binary grid [B, T, C, H, W].
        x: Clean inputs, shaped like it.
        score: Scores >= 0 of the changed entries.
    """
    most = rows(score.flatten(1).amax(1), x)
    share = score / torch.where(most > 0, most, 1)
    return threat.project(x + (point - x) * (0.75 + 0.25 * share), x)

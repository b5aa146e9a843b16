"""What is wrong with adversarial event grids, counted without the threat set's own check."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.attacks.threat import Threat

__all__ = ["event_faults"]


def event_faults(x_adv: Tensor, x: Tensor, threat: Threat) -> dict[str, int]:
    """Count the faults of adversarial grids by name; 0 where there are none.

    Args:
        x_adv: Adversarial grids, shaped like ``x`` if nothing is wrong.
        x: Clean grids [B, T, C, H, W], or any shape for a threat set that does not name its kind.
        threat: A threat set on events.
    """
    if x_adv.shape != x.shape:
        return {"samples of another shape": len(x)}
    binary = bool(((x == 0) | (x == 1)).all())
    whole = (x_adv >= 0) & (x_adv == x_adv.round())
    whole &= (x_adv <= 1) if binary else torch.ones_like(whole)
    found = {"cells that are no events": int((~whole).sum())}
    kind = threat.norm.partition(" ")[0]
    if kind == "edits" and x.ndim == 5 and x.shape[2] == 2:
        full, before = ((each > 0).all(2) for each in (x_adv, x))
        found["cells with both polarities"] = int((full & ~before).sum())
    after, before = x_adv.double().flatten(2), x.double().flatten(2)
    if kind == "retiming":
        found["lines with another number of events"] = int((after.sum(1) != before.sum(1)).sum())
        found["lines with an event that moved too far"] = _moved_too_far(after, before, threat)
        return found
    changed = (after - before).abs().sum((1, 2))
    found["samples over budget"] = int((changed > threat.eps).sum())
    gained = (after.sum((1, 2)) - before.sum((1, 2))).abs()
    found["samples with a number of events outside the interval"] = int((gained > threat.eps).sum())
    return found


def _moved_too_far(after: Tensor, before: Tensor, threat: Threat) -> int:
    """Count lines on which an event moved by more than eps bins.

    No event of a line moved by more than D if and only if the events until t of each grid are
    among those until t + D of the other.
    """
    far = int(threat.eps)
    shown = [torch.nn.functional.pad(each, (0, 0, 0, far)).cumsum(1) for each in (after, before)]
    bins = after.shape[1]
    late = shown[1][:, :bins] > shown[0][:, far : far + bins]
    early = shown[0][:, :bins] > shown[1][:, far : far + bins]
    return int((late | early).any(1).sum())

"""Threat sets on event grids [B, T, C, H, W]: whole numbers, changed at a budget."""

from __future__ import annotations

from spikeguard.attacks.event_threats.counts import Counts
from spikeguard.attacks.event_threats.edits import Edits
from spikeguard.attacks.event_threats.flips import Flips
from spikeguard.attacks.event_threats.retiming import Retiming

__all__ = ["EVENT_THREATS", "Counts", "Edits", "Flips", "Retiming"]

EVENT_THREATS: dict[str, type[Flips | Edits | Counts | Retiming]] = {
    "flips": Flips,
    "edits": Edits,
    "counts": Counts,
    "retiming": Retiming,
}

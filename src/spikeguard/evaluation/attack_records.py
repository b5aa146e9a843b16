"""Records of attacks that find out more than one input: soft and hard success on events.

An attack with a method ``with_record`` returns its inputs and, by name, a number for each sample.
The records of a shard are arrays ``"attack:name"``, NaN where a sample was not attacked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.rng import SampleStreams

__all__ = ["HARD", "SampleRecords", "attacked", "summed", "success_text"]

HARD = "hard"  # the share of scored draws on which the attack's inputs are misclassified


def attacked(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor, streams: SampleStreams
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run an attack on a batch; return its inputs and its record, empty for most attacks."""
    if not hasattr(attack, "with_record"):
        return attack(model, x, y, generator=streams).detach(), {}
    found, record = attack.with_record(model, x, y, generator=streams)
    return found.detach(), {name: values.double().cpu() for name, values in record.items()}


class SampleRecords(dict[str, Tensor]):
    """The records of the samples of a shard.

    Args:
        samples: Number of samples.
        known: Records of an earlier, interrupted run.
    """

    def __init__(self, samples: int, known: Mapping[str, Tensor] | None = None):
        super().__init__(known or {})
        self.samples = samples

    def add(self, name: str, rows: Tensor, record: Mapping[str, Tensor], shares: Tensor) -> None:
        """Add what an attack found out about the samples at some rows, and its success.

        Args:
            name: Name of the attack.
            rows: Indices of the samples [B].
            record: Numbers by name [B]; nothing is added where there are none.
            shares: Shares of correct draws at the attack's inputs [B].
        """
        if not record:
            return
        for key, values in {**record, HARD: 1 - shares}.items():
            whole = self.setdefault(
                f"{name}:{key}", torch.full((self.samples,), torch.nan, dtype=torch.float64)
            )
            whole[rows] = values.to(whole)


def summed(merged: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Return for each attack the number of samples attacked, and the sum of each record.

    Args:
        merged: Records of all samples by ``"attack:name"`` [N].
    """
    found: dict[str, dict[str, float]] = {}
    for name, values in merged.items():
        attack, _, key = name.rpartition(":")
        entry = found.setdefault(attack, {"attacked": int((~values.isnan()).sum())})
        entry[key] = float(values.nansum())
    return found


def success_text(name: str, record: Mapping[str, Any]) -> str:
    """Write the successes of an attack in one line."""
    n = record["attacked"]
    shares = {key: 100 * record[key] / n for key in record if key != "attacked"} if n else {}
    said = ", ".join(f"{key} {share:.1f} %" for key, share in shares.items())
    return f"{name}: success on the {n} attacked samples: {said}" if said else ""

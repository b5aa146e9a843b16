"""EvaluationOptions: the options of an evaluation, checked once and passed as one object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

__all__ = ["EvaluationOptions", "Precision"]

Precision = Literal["32", "bf16"]


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation, apart from its model, data and attacks.

    Args:
        seed: Names the random streams of the attacks and of the scores.
        limit: Use only the first ``limit`` samples, >= 1; None uses all.
        batch_size: Samples at once, >= 1; results do not depend on it.
        draws: Noise draws on which every input is scored, >= 1; None is 10 for a stochastic model
            and 1 for a deterministic one.
        out: Folder for finished shards until the result is saved: a killed evaluation continues
            when it is called again with the same arguments. None stores nothing.
        keep_adversarial: Store the adversarial inputs of every attack in the result. Those of the
            worst case are always stored.
        cascade: Run attacks from cheap to expensive, each only on the samples that are still
            classified correctly, and stop a search as soon as it succeeds.
        precision: Precision of the attacks' passes: "32", or "bf16" for bfloat16 autocast. Scores
            are float32 either way.

    Raises:
        ValueError: If a value is out of range.
    """

    seed: int = 0
    limit: int | None = None
    batch_size: int = 128
    draws: int | None = None
    out: str | Path | None = None
    keep_adversarial: bool = False
    cascade: bool = False
    precision: Precision = "32"

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"evaluate: limit counts samples, >= 1, got {self.limit}.")
        if self.batch_size < 1 or (self.draws is not None and self.draws < 1):
            raise ValueError(
                f"evaluate: batch_size and draws are >= 1, got {self.batch_size} and {self.draws}."
            )
        if self.precision not in get_args(Precision):
            known = ", ".join(map(repr, get_args(Precision)))
            raise ValueError(f"evaluate: precision is one of {known}; got {self.precision!r}.")

    def identity(self) -> dict[str, Any]:
        """Return the options that determine the content of a stored shard, as plain data."""
        names = ("seed", "draws", "batch_size", "keep_adversarial", "cascade", "precision")
        return {name: getattr(self, name) for name in names}

"""The outcome of a sweep: records, errors, and the points that no other one dominates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from spikeguard.sweeps.space import Value
from spikeguard.sweeps.trial import Record

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from spikeguard.sweeps.queue import State

__all__ = ["Failure", "Outcome", "Stop", "front", "outcome"]


@dataclass(frozen=True)
class Failure:
    """A point that ended in an error."""

    point: Mapping[str, Value]
    error: str


@dataclass(frozen=True)
class Stop:
    """A point that was stopped early: below the median validation accuracy at an epoch."""

    point: Mapping[str, Value]
    epoch: int
    val_accuracy: float


@dataclass(frozen=True)
class Outcome:
    """What a sweep has found, in the order of the values of the fields.

    Attributes:
        records: The finished points.
        best: Places in ``records`` of the points that no other one dominates; for one objective,
            the best point.
        failed: The points that ended in an error.
        stopped: The points that were stopped early.
        left: Number of points that are not done.
    """

    records: Sequence[Record]
    best: Sequence[int]
    failed: Sequence[Failure]
    stopped: Sequence[Stop]
    left: int

    @property
    def total(self) -> int:
        """Number of points."""
        return len(self.records) + len(self.failed) + len(self.stopped) + self.left

    def to_dict(self) -> dict[str, Any]:
        """Return everything but times as plain data."""
        return {**asdict(self), "records": [record.to_dict() for record in self.records]}


def outcome(state: State, fields: Sequence[str], signs: Mapping[str, int]) -> Outcome:
    """Return the outcome of a sweep.

    Args:
        state: Its points.
        fields: Its fields; the points are in the order of their values.
        signs: By objective, 1 to maximise it and -1 to minimise it.
    """
    finished, failed, stopped = (
        _in_order(trials, fields) for trials in (state.finished, state.failed, state.stopped)
    )
    records = [Record(**trial.user_attrs["record"]) for trial in finished]
    values = [[sign * record.values[text] for text, sign in signs.items()] for record in records]
    return Outcome(
        records=records,
        best=front(values),
        failed=[Failure(_point(t, fields), t.user_attrs["error"]) for t in failed],
        stopped=[Stop(_point(t, fields), *max(t.intermediate_values.items())) for t in stopped],
        left=state.open + state.running,
    )


def front(values: Sequence[Sequence[float]]) -> list[int]:
    """Return the places of the points that no other one dominates; more is better everywhere.

    Example:
        >>> front([(1, 0), (0, 1), (0, 0)])
        [0, 1]
    """
    return [
        place
        for place, own in enumerate(values)
        if not any(
            all(b >= a for a, b in zip(own, other, strict=True)) and list(other) != list(own)
            for other in values
        )
    ]


def _point(trial: FrozenTrial, fields: Sequence[str]) -> dict[str, Value]:
    params = trial.system_attrs.get("fixed_params", trial.params)
    return {field: params[field] for field in fields}


def _in_order(trials: Sequence[FrozenTrial], fields: Sequence[str]) -> list[FrozenTrial]:
    """Sort trials by the values of their fields: an order that no worker decides."""

    def rank(trial: FrozenTrial) -> list[tuple[bool, float, str]]:
        return [
            (isinstance(v, str), 0.0 if isinstance(v, str) else float(v), str(v))
            for v in _point(trial, fields).values()
        ]

    return sorted(trials, key=rank)

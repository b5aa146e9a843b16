"""The queue of a sweep: its points, which of them are open, and who works on them.

A trial belongs to one worker at a time, whose name is stored in it. The trial of a worker that has
ended is given up and its point is enqueued again. A point is never lost: whatever is in the study
and neither finished, failed nor in work is enqueued.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from spikeguard.storage.heartbeat import repeated
from spikeguard.storage.owner import Owner
from spikeguard.sweeps.file_locks import exclusive
from spikeguard.sweeps.samplers import distributions, make_sampler
from spikeguard.sweeps.space import Dimension, Value, point_key
from spikeguard.sweeps.study import LOCK, close_study

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

__all__ = ["Queue", "State", "key_of"]

_OWNER, _ALIVE, _ENQUEUED, _RECORD, _ERROR = "owner", "alive", "enqueued", "record", "error"
_BEAT = 30.0  # seconds between signs of life
_SILENT = 900.0  # seconds without one, after which a worker of another host has ended
_WATCHED = 90.0  # seconds without one under its eyes, before a process calls an old sign the last
_UNNAMED = 60.0  # seconds after which a trial without an owner has none, in a database
_KILLS = 10  # workers killed at one point before it has failed


@dataclass(frozen=True)
class State:
    """The points of a sweep, each counted once.

    Attributes:
        finished: Trials with a record, one for each point.
        stopped: Trials that were stopped early.
        failed: Trials that ended in an error.
        running: Number of points in work, by any process.
        open: Number of points that a worker can begin.
    """

    finished: list[FrozenTrial] = field(default_factory=list)
    stopped: list[FrozenTrial] = field(default_factory=list)
    failed: list[FrozenTrial] = field(default_factory=list)
    running: int = 0
    open: int = 0

    @property
    def done(self) -> int:
        """Number of points that need no more work."""
        return len(self.finished) + len(self.stopped) + len(self.failed)


class Queue:
    """The shared queue of a sweep; the end of the block closes the connections to a database.

    Args:
        study: The study.
        dimensions: What a sampler may choose from.
        folder: Folder of the sweep, with the lock of the queue.
        sampler: One of ``SAMPLERS``.
        seed: Seed of the sampler.
        trials: Number of points of a search; None where all points are enqueued.
        remote: Whether workers may use another folder, as with a database.
    """

    def __init__(
        self,
        study: Study,
        dimensions: Sequence[Dimension],
        *,
        folder: Path,
        sampler: str = "grid",
        seed: int = 0,
        trials: int | None = None,
        remote: bool = False,
    ):
        self._study, self._dimensions, self._folder = study, tuple(dimensions), folder
        self._sampler, self._seed, self._trials = sampler, seed, trials
        self._remote = remote
        self._kills: Counter[str] = Counter()
        self._signs: dict[int, tuple[float, float]] = {}  # by trial: the last sign, seen since

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        close_study(self._study)

    def add(self, points: Iterable[Mapping[str, Value]]) -> None:
        """Enqueue the points that the study does not hold yet, in their order."""
        with exclusive(self._folder / LOCK):
            known = {key_of(trial) for trial in self._study.get_trials(deepcopy=False)}
            for point in points:
                if point_key(point) not in known:
                    self._enqueue(point)

    def retry_failed(self) -> int:
        """Enqueue the points that failed; return their number."""
        with exclusive(self._folder / LOCK):
            failed = self._state().failed
            for trial in failed:
                self._enqueue(_params(trial))
        return len(failed)

    def tidy(self) -> State:
        """Give up the trials of workers that have ended, enqueue their points again, and count."""
        from optuna.trial import TrialState

        with exclusive(self._folder / LOCK):
            for trial in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
                if self._is_dead(trial):
                    self._give_up(trial)
            for trial in self._lost():
                self._enqueue(_params(trial))
            return self._state()

    def claim(self) -> Trial | None:
        """Return the next trial with this process as its owner; None if no point is open."""
        with exclusive(self._folder / LOCK):
            if not self._state().open:
                return None
            self._study.sampler = make_sampler(
                self._sampler, seed=self._seed, trials=self._trials, drawn=self._drawn()
            )
            trial = self._study.ask(distributions(self._dimensions))
            if self._trials is None and _ENQUEUED not in trial.user_attrs:
                self.release(trial)  # a worker of another host took the last point
                return None
            trial.set_user_attr(_OWNER, Owner.this_process().to_dict())
            trial.set_user_attr(_ALIVE, time.time())
            return trial

    def finish(self, trial: Trial, record: Mapping[str, Any], values: Sequence[float]) -> None:
        """Store the record of a trial, and the values of the objectives."""
        with _unless_given_up():
            trial.set_user_attr(_RECORD, dict(record))
            self._study.tell(trial, list(values), skip_if_finished=True)

    def stop(self, trial: Trial) -> None:
        """End a trial early; the last value that it reported is kept."""
        from optuna.trial import TrialState

        with _unless_given_up():
            self._study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)

    def fail(self, trial: Trial | FrozenTrial, error: str) -> None:
        """End a trial with an error, which is kept."""
        from optuna.trial import TrialState

        with _unless_given_up():
            self._study._storage.set_trial_user_attr(trial._trial_id, _ERROR, error)
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def release(self, trial: Trial | FrozenTrial) -> None:
        """Give up a trial; its point is enqueued again."""
        from optuna.trial import TrialState

        with suppress(ValueError, RuntimeError):  # another process was faster
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _enqueue(self, point: Mapping[str, Value]) -> None:
        self._study.enqueue_trial(dict(point), user_attrs={_ENQUEUED: True})

    def _give_up(self, trial: FrozenTrial) -> None:
        key = key_of(trial)
        self._kills[key] += 1
        if self._kills[key] >= _KILLS:
            self.fail(trial, f"its worker was killed {_KILLS} times (out of memory?)")
        else:
            self.release(trial)

    def _lost(self) -> list[FrozenTrial]:
        """Return the last trials of points that were given up and are not enqueued."""
        from optuna.trial import TrialState

        names = {each.field for each in self._dimensions}
        return [
            trials[-1]
            for trials in self._by_point().values()
            if all(t.state == TrialState.FAIL for t in trials)
            and _ERROR not in trials[-1].user_attrs
            and names == _params(trials[-1]).keys()  # else it was killed before it had a point
            and (self._trials is not None or _ENQUEUED in trials[-1].user_attrs)  # else no point
        ]

    def _drawn(self) -> int:
        """Count the points that were drawn: not those enqueued again after a worker ended."""
        from optuna.trial import TrialState

        names = {each.field for each in self._dimensions}
        return sum(
            _ENQUEUED not in trial.user_attrs
            and (trial.state != TrialState.FAIL or names == _params(trial).keys())
            for trial in self._study.get_trials(deepcopy=False)
        )

    def _by_point(self) -> dict[str, list[FrozenTrial]]:
        found: dict[str, list[FrozenTrial]] = {}
        for trial in self._study.get_trials(deepcopy=False):
            found.setdefault(key_of(trial), []).append(trial)
        return found

    def _state(self) -> State:
        from optuna.trial import TrialState

        found, waiting, running, drawn = State(), 0, 0, 0
        for trials in self._by_point().values():
            states = [trial.state for trial in trials]
            drawn += sum(s in (TrialState.COMPLETE, TrialState.PRUNED) for s in states)
            busy = TrialState.WAITING in states or TrialState.RUNNING in states
            if TrialState.COMPLETE in states:
                found.finished.append(trials[states.index(TrialState.COMPLETE)])
            elif TrialState.PRUNED in states:
                found.stopped.append(trials[states.index(TrialState.PRUNED)])
            elif not busy and any(_ERROR in trial.user_attrs for trial in trials):
                found.failed.append(next(t for t in reversed(trials) if _ERROR in t.user_attrs))
                drawn += 1
            waiting += states.count(TrialState.WAITING)
            running += states.count(TrialState.RUNNING)
        drawn += waiting + running
        fresh = 0 if self._trials is None else max(0, self._trials - drawn)
        return State(found.finished, found.stopped, found.failed, running, waiting + fresh)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a running trial has ended; the queue is locked."""
        owner = Owner.of(trial.user_attrs.get(_OWNER))
        if owner == Owner():  # its worker was killed between two lines of claim()
            began = trial.datetime_start
            age = time.time() - began.timestamp() if began is not None else 0.0
            return not self._remote or age > _UNNAMED
        if owner.is_here:
            return not owner.runs()
        return self._is_silent(trial, float(trial.user_attrs.get(_ALIVE, 0.0)))

    def _is_silent(self, trial: FrozenTrial, sign: float) -> bool:
        """Whether the last sign of a trial was the last one.

        The clocks of two hosts may differ, so a sign that looks old is watched for a while by the
        clock of this process: that of a worker that runs changes.
        """
        now = time.monotonic()
        if self._signs.get(trial.number, (None,))[0] != sign:
            self._signs[trial.number] = (sign, now)
        watched = now - self._signs[trial.number][1]
        return watched > _SILENT or (watched > _WATCHED and time.time() - sign > _SILENT)


@contextmanager
def _unless_given_up() -> Iterator[None]:
    """Drop what a worker reports of a trial that was given up meanwhile; another one has it."""
    from optuna.exceptions import UpdateFinishedTrialError

    with suppress(UpdateFinishedTrialError):
        yield


@contextmanager
def signs_of_life(trial: Trial) -> Iterator[None]:
    """Store the time in a trial every half a minute inside the block: its worker runs."""

    def beat() -> None:
        with suppress(Exception):  # the worker itself reports what is wrong
            trial.set_user_attr(_ALIVE, time.time())

    with repeated(beat, _BEAT):
        yield


def key_of(trial: FrozenTrial) -> str:
    """Return the point of a trial as text; equal for equal points."""
    return point_key(_params(trial))


def _params(trial: FrozenTrial) -> dict[str, Value]:
    return dict(trial.system_attrs.get("fixed_params", trial.params))

"""The queue: owners that have ended, here and on other hosts, and what is enqueued again."""

import time

import pytest

from spikeguard.storage.owner import Owner
from spikeguard.sweeps import queue as module
from spikeguard.sweeps.queue import Queue, signs_of_life
from spikeguard.sweeps.space import grid, parse_dimension

FIELDS = [parse_dimension("a=0:1:3")]


@pytest.fixture
def study():
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna.create_study(direction="maximize")


def queue_of(study, folder, **options):
    return Queue(study, FIELDS, folder=folder, **options)


def owned(trial, owner, alive=None):
    trial.set_user_attr("owner", owner.to_dict())
    trial.set_user_attr("alive", time.time() if alive is None else alive)


ENDED = Owner(2**22 + 1, Owner.this_process().host, "1")
ELSEWHERE = Owner(1, "another-host", "1")


def test_points_are_enqueued_once_and_claimed_in_order(study, tmp_path):
    queue = queue_of(study, tmp_path)
    queue.add(grid(FIELDS))
    queue.add([*grid(FIELDS), {"a": 0.25}])
    assert [queue.claim().params["a"] for _ in range(4)] == [0.0, 0.5, 1.0, 0.25]
    assert queue.claim() is None
    state = queue.tidy()
    assert (state.open, state.running, state.done) == (0, 4, 0)  # this process runs


@pytest.mark.parametrize(
    ("owner", "silent", "again"),
    [
        (Owner.this_process(), 0, False),
        (ENDED, 0, True),
        (ELSEWHERE, 0, False),
        (ELSEWHERE, 1000, True),
    ],
)
def test_the_trial_of_an_ended_worker_is_enqueued_again(
    study, tmp_path, monkeypatch, owner, silent, again
):
    """On another host, when its old sign of life has not changed for a while either."""
    queue = queue_of(study, tmp_path)
    queue.add([{"a": 0.5}])
    owned(queue.claim(), owner, time.time() - silent)
    if owner == ELSEWHERE:
        assert queue.tidy().running == 1  # seen for the first time
        later = time.monotonic() + 100
        monkeypatch.setattr(module.time, "monotonic", lambda: later)
    state = queue.tidy()
    assert (state.open, state.running) == ((1, 0) if again else (0, 1))
    assert queue.tidy() == state


@pytest.mark.parametrize(("behind", "beats", "again"), [(2000, True, False), (-9e4, False, True)])
def test_the_clock_of_another_host_does_not_decide(
    study, tmp_path, monkeypatch, behind, beats, again
):
    """A worker that beats by a slow clock runs; one that ended with a fast clock is given up."""
    queue = queue_of(study, tmp_path)
    queue.add([{"a": 0.5}])
    trial, began = queue.claim(), time.time()
    for moment in range(0, 1800, 60):
        monkeypatch.setattr(module.time, "monotonic", lambda moment=moment: moment)
        owned(trial, ELSEWHERE, began - behind + (moment if beats else 0))
        state = queue.tidy()
        if state.open:
            break
    assert bool(state.open) == again


@pytest.mark.parametrize("end", ["finish", "fail", "stop"])
def test_what_a_worker_reports_of_a_trial_that_was_given_up_is_dropped(study, tmp_path, end):
    queue = queue_of(study, tmp_path)
    queue.add([{"a": 0.5}])
    late = queue.claim()
    late.report(0.5, 1)
    queue.release(late)
    assert queue.tidy().open == 1
    {
        "finish": lambda: queue.finish(late, {"x": 1}, [0.5]),
        "fail": lambda: queue.fail(late, "no network"),
        "stop": lambda: queue.stop(late),
    }[end]()
    assert queue.tidy().open == 1
    queue.finish(queue.claim(), {"x": 2}, [0.5])
    state = queue.tidy()
    assert [t.user_attrs["record"] for t in state.finished] == [{"x": 2}]


@pytest.mark.parametrize(("remote", "age", "again"), [(False, 0, 1), (True, 0, 0), (True, 90, 1)])
def test_a_trial_without_an_owner(study, tmp_path, monkeypatch, remote, age, again):
    """Its worker was killed inside claim(), or is in there now, on a host without this lock."""
    queue = queue_of(study, tmp_path, remote=remote)
    queue.add([{"a": 0.5}])
    study.ask()
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + age)
    assert queue.tidy().open == again


def test_a_point_that_was_given_up_and_not_enqueued_is_not_lost(study, tmp_path):
    queue = queue_of(study, tmp_path)
    queue.add([{"a": 0.5}])
    queue.release(queue.claim())
    assert queue.tidy().open == 1


def test_a_point_that_kills_its_workers_fails(study, tmp_path):
    queue = queue_of(study, tmp_path)
    queue.add([{"a": 0.5}])
    for _ in range(9):
        owned(queue.claim(), ENDED)
        assert queue.tidy().open == 1
    owned(queue.claim(), ENDED)
    state = queue.tidy()
    assert (state.open, len(state.failed)) == (0, 1)
    assert state.failed[0].user_attrs["error"] == "its worker was killed 10 times (out of memory?)"


def test_an_error_is_kept_until_the_point_is_finished(study, tmp_path):
    queue = queue_of(study, tmp_path)
    queue.add([{"a": 0.5}])
    queue.fail(queue.claim(), "no network")
    assert [t.user_attrs["error"] for t in queue.tidy().failed] == ["no network"]
    assert queue.retry_failed() == 1
    state = queue.tidy()
    assert (state.open, state.failed) == (1, [])
    queue.release(queue.claim())  # the second try is interrupted
    assert queue.tidy().open == 1
    queue.finish(queue.claim(), {"x": 1}, [0.5])
    state = queue.tidy()
    assert state.failed == [] and state.finished[0].user_attrs["record"] == {"x": 1}


def test_a_search_counts_open_points_and_replaces_what_was_given_up(study, tmp_path):
    queue = queue_of(study, tmp_path, sampler="random", trials=3)
    assert queue.tidy().open == 3
    first = queue.claim()
    queue.finish(first, {}, [0.0])
    owned(queue.claim(), ENDED)
    lost = study.trials[1].params
    state = queue.tidy()
    assert (state.open, state.done) == (2, 1)
    assert queue.claim().params == lost
    queue.fail(queue.claim(), "no network")
    assert queue.claim() is None and queue.tidy().running == 1


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2"])
@pytest.mark.parametrize("interrupted", [0, 2])
def test_a_search_draws_the_same_points_after_an_interruption(tmp_path, sampler, interrupted):
    import optuna

    def points(at=None):
        study, found = optuna.create_study(direction="maximize"), []
        queue = queue_of(study, tmp_path, sampler=sampler, seed=0, trials=5)
        while queue.tidy().open:
            trial = queue.claim()
            if trial.number == at:
                queue.release(trial)
                continue
            found.append(trial.params["a"])
            queue.finish(trial, {}, [trial.params["a"]])
        return found

    undisturbed = points()
    assert len(set(undisturbed)) > 2
    assert points(interrupted) == undisturbed


def test_a_grid_takes_no_point_that_nobody_enqueued(study, tmp_path, monkeypatch):
    """The last point was taken by a worker of another host, which this lock does not stop."""
    queue = queue_of(study, tmp_path)
    queue.add([{"a": 0.5}])
    state = queue.tidy()
    study.ask()
    monkeypatch.setattr(queue, "_state", lambda: state)
    assert queue.claim() is None
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "FAIL"]
    monkeypatch.undo()
    assert queue.tidy().open == 1  # of the other worker, which has ended
    assert queue.claim().params == {"a": 0.5}
    assert queue.claim() is None  # what the sampler drew is no point of the grid


def test_signs_of_life_are_stored_while_the_block_runs(study, monkeypatch):
    monkeypatch.setattr(module, "_BEAT", 0.001)
    trial = study.ask()
    with signs_of_life(trial):
        while "alive" not in trial.user_attrs:
            pass
    assert abs(trial.user_attrs["alive"] - time.time()) < 60

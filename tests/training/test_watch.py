"""The watch over ranks, with a store in memory: who died, who failed first, who reports it."""

import json
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from spikeguard.storage.owner import Owner
from spikeguard.training.watch import LOST, Failure, Watch


class Memory:
    """A store like torch's, in one process."""

    def __init__(self):
        self.values, self.broken = {}, False

    def set(self, key, value):
        if self.broken:
            raise RuntimeError("connection closed")
        self.values[key] = value.encode()

    def get(self, key):
        return self.values[key]

    def check(self, keys):
        return all(key in self.values for key in keys)

    def compare_set(self, key, expected, desired):
        return self.values.setdefault(key, desired.encode())


@pytest.fixture
def store():
    return Memory()


@pytest.fixture
def watching(store):
    """Start the watch of a rank; what would end its process is collected."""
    started, ended = [], []

    def start(rank, size=2, silence=600.0):
        watch = Watch(store, rank, size, silence=silence, leave=ended.append)
        started.append(watch)
        return watch

    yield start, ended
    for watch in started:
        if watch._thread.is_alive():
            watch.stop()


def elsewhere(store, rank):
    """Let a rank be a process of another host."""
    store.set(f"owner/{rank}", json.dumps(Owner(1, "far", None).to_dict()))


def test_a_dead_process_of_this_host_is_found_and_named(store, watching):
    start, _ = watching
    first = start(0)
    gone = Owner(2**22 + 1, Owner.this_process().host, "1")
    store.set("owner/1", json.dumps(gone.to_dict()))
    first.start()
    found = first.failure(within=30)
    assert found.text == f"rank 1 on {gone.host} has died; all ranks end, resume the run"
    assert (found.rank, found.code) == (1, LOST)


def test_a_silent_rank_of_another_host_is_found(store, watching):
    start, _ = watching
    first = start(0, silence=0.0)
    elsewhere(store, 1)
    first.start()
    assert "rank 1 on far has shown no sign of life" in first.failure(within=30).text


def test_a_stopped_rank_of_this_host_is_ended(store, watching):
    start, _ = watching
    first = start(0, silence=0.0)
    with subprocess.Popen(["sleep", "60"]) as stopped:
        os.kill(stopped.pid, signal.SIGSTOP)
        started = Path(f"/proc/{stopped.pid}/stat").read_text().split()[21]
        owner = Owner(stopped.pid, Owner.this_process().host, started)
        store.set("owner/1", json.dumps(owner.to_dict()))
        first.start()
        assert "no sign of life" in first.failure(within=30).text
        assert stopped.wait(timeout=30) == -signal.SIGKILL


def test_a_rank_that_shows_signs_of_life_is_left_alone(store, watching):
    start, ended = watching
    ranks = [start(0), start(1)]
    for rank in ranks:
        rank.start()
    assert ranks[0].failure(within=1.5) is None and ended == []
    assert store.check(["beat/0", "beat/1"])


def test_the_first_failure_counts_and_reaches_all(store, watching):
    start, _ = watching
    ranks = [start(0), start(1)]
    first = Failure(1, "rank 1", "out of memory", 2)
    assert ranks[1].report(first) == first
    assert ranks[0].report(Failure(0, "rank 0", "another", 1)) == first
    for rank in ranks:
        rank.start()
        assert rank.failure(within=30) == first
    ranks[1].wait_until_known(30)
    assert store.check(["knows/0"])


def test_a_main_thread_that_waits_for_ever_is_ended(store, watching, monkeypatch):
    monkeypatch.setattr("spikeguard.training.watch._GRACE", 0.0)
    start, ended = watching
    rank = start(0)
    failure = rank.report(Failure(1, "rank 1", "diverged", 2))
    rank.start()
    rank._thread.join(timeout=30)
    assert ended == [failure]


def test_a_lost_store_is_the_end_of_rank_0(store, watching):
    start, _ = watching
    rank = start(1)
    store.broken = True
    rank.start()
    assert "rank 0 or the launcher" in rank.failure(within=30).text


def test_one_rank_reports():
    failed = Failure(1, "rank 1", "diverged", 2)
    assert [failed.must_be_shown_by(rank) for rank in range(3)] == [True, False, False]
    died = Failure(0, "rank 0", "has died", LOST)
    assert [died.must_be_shown_by(rank) for rank in range(3)] == [False, True, False]
    told = Failure(0, "rank 0", "disk full", 2, told=True)
    assert not any(told.must_be_shown_by(rank) for rank in range(3))


def test_threads_end():
    before = {thread.name for thread in threading.enumerate()}
    watch = Watch(Memory(), 0, 2)
    watch.start()
    watch.stop()
    assert {thread.name for thread in threading.enumerate()} == before

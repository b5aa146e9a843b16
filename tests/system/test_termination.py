"""SIGTERM is deferred, delivered where the block asks for it, and never lost."""

import signal

import pytest

from spikeguard.system import termination as module
from spikeguard.system.termination import REPEAT, termination_deferred


class Handled(Exception):
    pass


@pytest.fixture(autouse=True)
def raising():
    def handle(number, frame):
        raise Handled

    before = signal.signal(signal.SIGTERM, handle)
    yield handle
    signal.signal(signal.SIGTERM, before)


def test_the_signal_waits_for_the_block_to_deliver_it(raising):
    done = []
    with pytest.raises(Handled), termination_deferred() as termination:
        assert not termination.requested
        signal.raise_signal(signal.SIGTERM)
        done.append("saved")
        assert termination.requested
        termination.deliver()
        done.append("never")
    assert done == ["saved"] and signal.getsignal(signal.SIGTERM) is raising


def test_a_second_signal_does_not_wait_but_a_repeated_one_does(monkeypatch):
    """Scheduler and launcher both send the first request to a rank."""
    done, now = [], [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with pytest.raises(Handled), termination_deferred():
        for _ in range(2):
            signal.raise_signal(signal.SIGTERM)
            now[0] += REPEAT / 2
            done.append("first")
        signal.raise_signal(signal.SIGTERM)
        done.append("never")
    assert done == ["first"] * 2


def test_an_undelivered_signal_takes_effect_after_the_block():
    done = []
    with pytest.raises(Handled):
        with termination_deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("inside")
        done.append("never")
    assert done == ["inside"]


def test_a_handler_that_returns_lets_the_block_go_on():
    seen = []
    signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    with termination_deferred() as termination:
        signal.raise_signal(signal.SIGTERM)
        termination.deliver()
        assert not termination.requested
    assert seen == [signal.SIGTERM]


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with termination_deferred() as termination:
        signal.raise_signal(signal.SIGTERM)
        assert not termination.requested


def test_a_signal_is_not_lost_where_the_block_raises():
    """The error is the context of what the handler does."""
    with pytest.raises(Handled) as caught, termination_deferred():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("the loss is not finite")
    assert isinstance(caught.value.__context__, ValueError)

"""Signs of life: given inside the block, and not after it."""

import threading

import pytest

from spikeguard.storage.heartbeat import repeated


def test_it_beats_inside_the_block_and_not_after_it():
    beats, third = [], threading.Event()

    def beat():
        beats.append(threading.current_thread())
        if len(beats) == 3:
            third.set()

    with repeated(beat, 0.001):
        assert third.wait(60)
    known = len(beats)
    assert threading.main_thread() not in beats
    assert not beats[0].is_alive() and len(beats) == known


def test_an_error_in_the_block_ends_it():
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError), repeated(lambda: None, 60):
        _ = 1 / 0
    assert threading.active_count() == threads

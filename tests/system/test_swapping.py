"""Swapped attributes: every object gets its own value back, whatever happens in between."""

from types import SimpleNamespace

import pytest

from spikeguard.system.swapping import restored, swapped


def objects():
    return [SimpleNamespace(a=n) for n in range(3)]


def values(things):
    return [each.a for each in things]


@pytest.mark.parametrize("fails", [False, True])
def test_every_object_gets_its_own_value_back(fails):
    things = objects()
    try:
        with swapped(things, "a", 7):
            assert values(things) == [7, 7, 7]
            things[1].a = 8  # changes in the block do not matter
            if fails:
                raise KeyError
    except KeyError:
        assert fails
    assert values(things) == [0, 1, 2]


def test_blocks_are_nested():
    things = objects()
    with swapped(things, "a", 7):
        with swapped(things[:2], "a", 8):
            assert values(things) == [8, 8, 7]
        assert values(things) == [7, 7, 7]
    assert values(things) == [0, 1, 2]


def test_objects_may_come_from_a_generator_and_more_than_once():
    things = objects()
    with swapped((each for each in [*things, *things]), "a", 7):
        assert values(things) == [7, 7, 7]
    assert values(things) == [0, 1, 2]


class Guarded:
    """Its attribute can be read, and set only to itself."""

    a = property(lambda self: 5, lambda self, value: self._set(value))

    def _set(self, value):
        if value != 5:
            raise ValueError("it cannot be set")


def test_a_failure_half_way_restores_those_that_were_set():
    things = objects()
    with pytest.raises(ValueError, match="cannot be set"), swapped([*things, Guarded()], "a", 7):
        raise AssertionError("the block must not run")
    assert values(things) == [0, 1, 2]


def test_a_missing_attribute_is_an_error_and_nothing_changes():
    things = objects()
    for manager in (swapped([*things, object()], "a", 7), restored([*things, object()], "a")):
        with pytest.raises(AttributeError), manager:
            raise AssertionError("the block must not run")
        assert values(things) == [0, 1, 2]


def test_restored_undoes_any_change_in_the_block():
    things = objects()
    with pytest.raises(KeyError), restored(things, "a"):
        for each in things:
            each.a += 10
        raise KeyError
    assert values(things) == [0, 1, 2]

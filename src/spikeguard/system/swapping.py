"""Context managers that change an attribute of many objects for the length of a block."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = ["restored", "swapped"]


@contextmanager
def restored(objects: Iterable[object], attribute: str) -> Iterator[None]:
    """Restore the attribute of every object to its present value at the end of the block.

    Args:
        objects: Any objects; one may occur more than once.
        attribute: Its name; every object has it.

    Raises:
        AttributeError: If an object does not have the attribute; nothing has changed then.
    """
    before = [(each, getattr(each, attribute)) for each in objects]
    try:
        yield
    finally:
        for each, value in before:
            setattr(each, attribute, value)


@contextmanager
def swapped(objects: Iterable[object], attribute: str, value: object) -> Iterator[None]:
    """Set the attribute of every object to ``value`` inside the block.

    Every object gets back the value it had, also if the block, or setting an attribute, raises.

    Args:
        objects: Any objects; one may occur more than once.
        attribute: Its name; every object has it.
        value: The same for all.

    Raises:
        AttributeError: If an object does not have the attribute; nothing has changed then.
    """
    objects = list(objects)
    with restored(objects, attribute):
        for each in objects:
            setattr(each, attribute, value)
        yield

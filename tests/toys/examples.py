"""An instance of every registry entry, built from what the entry itself declares."""

import inspect


def example(part, **known):
    """Build a registry entry for a contract test.

    A part with a ``example`` beside its constructor is built by that, every other one with its
    defaults. ``T`` and ``shape`` are handed to those that ask for them; other keywords to all.
    """
    make = getattr(part, "example", part)
    taken = inspect.signature(make).parameters
    given = {"T": 6, "shape": ()} | known
    return make(**{k: v for k, v in given.items() if k in taken or k not in ("T", "shape")})

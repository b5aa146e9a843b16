"""An instance of every registry entry, built from what the entry itself declares."""

import inspect


def example(part, **known):
    """Build a registry entry for a contract test.

    A part with an ``example`` beside its constructor is built by it, every other part with its
    defaults. Only parts with a parameter ``T`` or ``shape`` get it; other keywords go to all.
    """
    make = getattr(part, "example", part)
    taken = inspect.signature(make).parameters
    given = {"T": 6, "shape": ()} | known
    return make(**{k: v for k, v in given.items() if k in taken or k not in ("T", "shape")})

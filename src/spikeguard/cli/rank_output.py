"""Output of a command that several ranks run: that of rank 0 alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import NoReturn

from spikeguard.system.launch_place import this_place

__all__ = ["is_one_of_several", "leave", "of_first_rank", "print_anyway"]


def is_one_of_several(words: Sequence[str]) -> bool:
    """Whether a command line is run by several processes together: a training that was launched."""
    with suppress(ValueError):  # the command reports it
        return list(words[:1]) == ["train"] and this_place() is not None
    return False


@contextmanager
def of_first_rank() -> Iterator[None]:
    """Discard what this process writes inside the block, unless it is rank 0."""
    place = this_place()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read when torch is imported
    if place is None or place.rank == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):  # noqa: PTH123
        yield


def print_anyway(line: str) -> None:
    """Write a line to standard error although another rank is rank 0."""
    print(line, file=sys.__stderr__)


def leave(code: int) -> NoReturn:
    """End the process at once: threads of the exchange between ranks may crash a usual end."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)

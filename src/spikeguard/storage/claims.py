"""Claims: which process works on what, as files in a folder that processes of many hosts share.

A claim is a file that can be created only once. It names its owner, and its modification time is
renewed while the owner runs. The claim of an owner that has ended is taken over: by its process
number on the same host, and on another host by its silence. Silence is measured by the file
system's own clock: the time of a fresh file in the same folder less that of the claim. The clocks
of the hosts do not matter.

A claim is never replaced. Whoever takes over creates the next generation, ``NAME.claim-1`` after
``NAME.claim-0``, which one process alone can do; the highest generation counts.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from spikeguard.storage.heartbeat import repeated
from spikeguard.storage.owner import Owner

__all__ = ["BEAT", "SILENT", "Claim", "Claims", "beating", "has_ended"]

BEAT = 15.0  # seconds between two renewals
SILENT = 300.0  # seconds of silence after which an owner on another host has ended
_POLL = (0.02, 1.0)  # seconds between two looks at a claim that another process holds


class Claim:
    """A claim of this process; the end of the block releases it.

    Args:
        claims: Where it belongs.
        name: Its name.
        number: Its generation.
    """

    def __init__(self, claims: Claims, name: str, number: int):
        self._claims, self._name, self._number = claims, name, number
        self._file = claims.file(name, number)
        self._beat = beating(self._file)

    @property
    def lost(self) -> bool:
        """Whether another process has taken it over: this one was silent for too long."""
        return self._claims.generations(self._name)[-1:] != [self._number]

    def __enter__(self) -> Self:
        self._beat.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._beat.__exit__(None, None, None)
        self._file.unlink(missing_ok=True)


class Claims:
    """The claims in a folder.

    Args:
        folder: Created with the first claim.
        about: Plain data written into every claim, beside its owner.
    """

    def __init__(self, folder: Path, about: dict[str, Any] | None = None):
        self.folder, self._about = folder, about or {}

    def take(self, name: str) -> Claim | None:
        """Claim a name; None if a process that runs holds it.

        Raises:
            OSError: If the folder cannot be written; nothing is claimed then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        before = self.generations(name)
        if before and not has_ended(self.file(name, before[-1])):
            return None
        number = before[-1] + 1 if before else 0
        file = self.file(name, number)
        card = {**Owner.this_process().to_dict(), **self._about}
        try:
            with file.open("x", encoding="utf-8") as handle:
                try:
                    handle.write(json.dumps(card))
                    handle.flush()
                except OSError:  # a full disk
                    file.unlink()
                    raise
        except FileExistsError:  # another process was faster
            return None
        except OSError as error:
            error.filename = error.filename or str(file)
            raise
        if self.generations(name)[-1:] != [number]:  # it was taken over twice meanwhile
            file.unlink(missing_ok=True)
            return None
        return Claim(self, name, number)

    @contextmanager
    def waiting(self, name: str) -> Iterator[None]:
        """Hold a claim inside the block; wait for it while another process holds it."""
        pause, most = _POLL
        while (claim := self.take(name)) is None:
            time.sleep(pause)
            pause = min(2 * pause, most)
        with claim:
            yield

    def clear(self, prefix: str) -> None:
        """Remove all claims whose names begin with a text; their work is finished."""
        for file in self._files():
            if file.name.startswith(prefix):
                file.unlink(missing_ok=True)

    def file(self, name: str, number: int) -> Path:
        """Return the file of a generation of a claim."""
        return self.folder / f"{name}.claim-{number}"

    def generations(self, name: str) -> list[int]:
        """Return the generations of a claim that exist, in increasing order."""
        starts = f"{name}.claim-"
        texts = [f.name.removeprefix(starts) for f in self._files() if f.name.startswith(starts)]
        return sorted(int(text) for text in texts if text.isdigit())

    def _files(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except FileNotFoundError:
            return []


@contextmanager
def beating(file: Path, missing: Callable[[], object] | None = None) -> Iterator[None]:
    """Renew the modification time of a file inside the block, from a thread.

    Args:
        file: The file.
        missing: Called if it was removed, or None.
    """

    def beat() -> None:
        try:
            os.utime(file)  # without a time: the file system's own
        except FileNotFoundError:
            if missing is not None:
                with suppress(OSError):
                    missing()
        except OSError:  # the work itself reports what is wrong
            pass

    with repeated(beat, BEAT):
        yield


def has_ended(file: Path) -> bool:
    """Whether the process that a file names has ended; not so where the file is gone."""
    try:
        renewed, text = file.stat().st_mtime, file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    try:
        owner = Owner.of(json.loads(text))
    except ValueError:  # it is just being written, or its process was killed over it
        owner = Owner()
    if owner.is_here:
        return not owner.runs()
    return _now(file.parent) - renewed > SILENT


def _now(folder: Path) -> float:
    """Return the time of a file system, in seconds, from a fresh file."""
    fresh = folder / f".clock.{secrets.token_hex(4)}.tmp"
    try:
        fresh.touch()
        os.utime(fresh)
        return fresh.stat().st_mtime
    finally:
        fresh.unlink(missing_ok=True)

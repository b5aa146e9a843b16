"""Members: the ranks that write to a folder together, each with a file in its subfolder ``ranks``.

The files name the processes and their common settings, and are renewed like claims while the
processes run. The logs of the ranks lie beside them.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.claims import Claims, beating, has_ended
from spikeguard.storage.owner import Owner

__all__ = ["RANKS", "FolderLocked", "Members"]

RANKS = "ranks"  # subfolder of claims, members and logs
_MEMBER = ".member"
_JOIN = "join"  # claim of the one that joins


class FolderLocked(ValueError):
    """Another process or thread writes to the folder."""


class Members:
    """The members of a folder.

    Args:
        place: The folder.
    """

    def __init__(self, place: Path):
        self._folder = place / RANKS

    def require_none(self, shown: Path) -> None:
        """Reject a folder with members that run.

        Args:
            shown: The folder as the user wrote it.

        Raises:
            FolderLocked: If there is one.
        """
        for card in self._running():
            raise FolderLocked(
                f"{shown}: {_who(card)} writes to it; wait until it has ended, or choose another "
                "folder."
            )

    @contextmanager
    def join(self, shown: Path, rank: str, settings: Mapping[str, str]) -> Iterator[bool]:
        """Be a member inside the block.

        Args:
            shown: The folder as the user wrote it.
            rank: Who this process is.
            settings: What all members have in common, by name.

        Yields:
            Whether no other member was there.

        Raises:
            FolderLocked: If a member has other settings.
        """
        file = self._folder / f"{platform.node()}-{os.getpid()}{_MEMBER}"
        card = {**Owner.this_process().to_dict(), "rank": rank, "settings": dict(settings)}
        with Claims(self._folder).waiting(_JOIN):
            others = self._running()
            for other in others:
                _require_equal(shown, other, settings)
            write_json(file, card)
        try:
            with beating(file, missing=lambda: write_json(file, card)):
                yield not others
        finally:
            file.unlink(missing_ok=True)

    def _running(self) -> list[dict[str, Any]]:
        """Return the cards of the members that run; remove those of the others."""
        found = []
        for file in sorted(self._folder.glob(f"*{_MEMBER}")):
            try:
                if has_ended(file):
                    file.unlink(missing_ok=True)
                    continue
                card = json.loads(file.read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):  # it has just left, or is damaged
                continue
            if isinstance(card, dict):
                found.append(card)
        return found


def _require_equal(shown: Path, other: dict[str, Any], settings: Mapping[str, str]) -> None:
    """Reject settings that are not those of a member.

    Raises:
        FolderLocked: If they differ; the message names which.
    """
    theirs = other.get("settings")
    theirs = theirs if isinstance(theirs, dict) else {}
    names = sorted(settings.keys() | theirs.keys())
    differ = [name for name in names if settings.get(name) != theirs.get(name)]
    if differ:
        values = ", ".join(
            f"{name} ({theirs.get(name, 'none')} there, {settings.get(name, 'none')} here)"
            for name in differ
        )
        raise FolderLocked(
            f"{shown}: {_who(other)} works on it with other settings: {values}; start all ranks "
            "with the same command and version, or wait until it has ended."
        )


def _who(card: dict[str, Any]) -> str:
    where = "" if card.get("host") == platform.node() else f" on {card.get('host')}"
    return f"process {card.get('pid')}{where} ({card.get('rank')})"

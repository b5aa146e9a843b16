"""The command line: one verb, one function, one exit code."""

from __future__ import annotations

from spikeguard.cli.entry import main

__all__ = ["main"]

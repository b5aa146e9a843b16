"""check(): can this model be attacked at all? Cheap tests to run before any attack."""

from __future__ import annotations

from spikeguard.preflight.checker import Preflight, check

__all__ = ["Preflight", "check"]

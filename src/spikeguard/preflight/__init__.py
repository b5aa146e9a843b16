"""The pre-flight check: cheap tests of a model to run before any attack."""

from __future__ import annotations

from spikeguard.preflight.checker import Preflight, check

__all__ = ["Preflight", "check"]

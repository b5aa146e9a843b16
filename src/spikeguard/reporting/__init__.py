"""The report: one self-contained HTML page about one run, or about several side by side."""

from __future__ import annotations

from spikeguard.reporting.renderer import report

__all__ = ["report"]

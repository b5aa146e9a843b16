"""Charts of the report, as plotly figures; a network has the same colour and marker in all."""

from __future__ import annotations

from spikeguard.reporting.charts.accuracy import against_radius, per_attack
from spikeguard.reporting.charts.audit import KINDS, Kind, audited
from spikeguard.reporting.charts.base import Chart, Look, looks
from spikeguard.reporting.charts.membrane import membranes
from spikeguard.reporting.charts.training import curves

__all__ = [
    "KINDS",
    "Chart",
    "Kind",
    "Look",
    "against_radius",
    "audited",
    "curves",
    "looks",
    "membranes",
    "per_attack",
]

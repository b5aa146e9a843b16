"""Operational maps: where in a plane of two recipe fields a network works, and what it costs."""

from __future__ import annotations

from spikeguard.maps.operational_map import OperationalMap, draw_map
from spikeguard.maps.plan import MapPlan

__all__ = ["MapPlan", "OperationalMap", "draw_map"]

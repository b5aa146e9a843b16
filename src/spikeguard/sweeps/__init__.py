"""Sweeps over recipe fields: grids and searches, run by any number of workers."""

from __future__ import annotations

from spikeguard.sweeps.engine import Sweep, sweep
from spikeguard.sweeps.space import Dimension, parse_dimension
from spikeguard.sweeps.table import Outcome
from spikeguard.sweeps.trial import Plan, Record

__all__ = ["Dimension", "Outcome", "Plan", "Record", "Sweep", "parse_dimension", "sweep"]

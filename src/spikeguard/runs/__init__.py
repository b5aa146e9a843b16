"""Work on run folders: train a recipe, attack and audit a run, reproduce recipes, run the demo."""

from __future__ import annotations

from spikeguard.runs.fresh_process import rescored
from spikeguard.runs.run import Run, require_finished

__all__ = ["Run", "require_finished", "rescored"]

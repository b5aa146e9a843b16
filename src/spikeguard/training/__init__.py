"""Training: `train()` minimises an objective, with checkpoints and bit-exact resume."""

from __future__ import annotations

from spikeguard.training.divergence import TrainingDiverged
from spikeguard.training.options import TrainOptions
from spikeguard.training.trainer import TrainResult, require_new_folder, train

__all__ = ["TrainOptions", "TrainResult", "TrainingDiverged", "require_new_folder", "train"]

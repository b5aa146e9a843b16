"""What lies where in a run folder."""

from __future__ import annotations

__all__ = [
    "ANALYSIS",
    "ATTACKS",
    "AUDIT",
    "BEST",
    "CHECKPOINTS",
    "ENVIRONMENT",
    "LAST",
    "MEMBRANE",
    "METRICS",
    "MODEL",
    "RECIPE",
    "REPORT",
    "RESULT",
]

RECIPE = "recipe.yaml"
MODEL = "model.json"  # in the place of a recipe, where a model of the user's own was attacked
ENVIRONMENT = "environment.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
CHECKPOINTS = "checkpoints"
BEST = f"{CHECKPOINTS}/best"
LAST = f"{CHECKPOINTS}/last"
ATTACKS = "attacks"
AUDIT = "audit.json"
ANALYSIS = "analysis"
MEMBRANE = f"{ANALYSIS}/membrane.npz"
REPORT = "report.html"

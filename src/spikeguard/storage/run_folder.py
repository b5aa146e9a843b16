"""Names of the files and folders inside a run folder."""

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
MODEL = "model.json"  # instead of a recipe, for a foreign model
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

"""Names of the files and folders inside a run folder."""

from __future__ import annotations

import difflib
from pathlib import Path

__all__ = [
    "ANALYSIS",
    "ATTACKS",
    "AUDIT",
    "BEST",
    "CERTIFICATES",
    "CHECKPOINTS",
    "ENVIRONMENT",
    "LAST",
    "MEMBRANE",
    "METRICS",
    "MODEL",
    "RECIPE",
    "REPORT",
    "RESULT",
    "no_such_run",
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
CERTIFICATES = "certificates"
MEMBRANE = f"{ANALYSIS}/membrane.npz"
REPORT = "report.html"


def no_such_run(path: Path) -> str:
    """Return the message for a missing run folder, with the folder that may be meant.

    Results of a foreign model ``package.module:factory`` are in ``package.module.factory``.
    """
    beside = path.parent.iterdir() if path.parent.is_dir() else ()
    runs = [each for each in beside if any((each / file).is_file() for file in (RECIPE, MODEL))]
    names = sorted(each.name for each in runs)
    dotted = path.name.replace(":", ".")
    close = [dotted] if dotted in names else difflib.get_close_matches(path.name, names, n=1)
    hint = f" Did you mean {path.with_name(close[0])}?" if close else ""
    return f"{path}: no such run folder.{hint}"

"""Recipes in YAML: read, checked, and built into model, data, objective and options."""

from __future__ import annotations

from spikeguard.config.builder import (
    Built,
    build,
    build_model,
    build_objective,
    load_data,
    require_images,
    require_tunable,
    tunable_suites,
)
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import DataSection, EvaluateSection, Recipe, eps_text, load_recipe

__all__ = [
    "Built",
    "ConfigError",
    "DataSection",
    "EvaluateSection",
    "Recipe",
    "build",
    "build_model",
    "build_objective",
    "eps_text",
    "load_data",
    "load_recipe",
    "require_images",
    "require_tunable",
    "tunable_suites",
]

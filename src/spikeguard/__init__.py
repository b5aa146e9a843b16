"""SpikeGuard: train, attack, audit and report the adversarial robustness of spiking networks.

The public names are loaded when they are first used, so that ``spikeguard --help`` needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikeguard import (
        analysis,
        attacks,
        auditing,
        data,
        defences,
        encoders,
        export,
        kernels,
        models,
        neurons,
        reporting,
        rng,
    )
    from spikeguard.attacks import L1, L2, Linf
    from spikeguard.auditing import Verdict, audit
    from spikeguard.config import ConfigError, Recipe, build, load_recipe
    from spikeguard.evaluation import Evaluation, evaluate
    from spikeguard.models.adapters import foreign
    from spikeguard.neurons import backward_mode, record
    from spikeguard.preflight import check
    from spikeguard.reporting import report
    from spikeguard.rng import SampleStreams, randomness, stream
    from spikeguard.runs import Run
    from spikeguard.runs.demo import run_demo
    from spikeguard.training import TrainOptions, TrainResult, train

__all__ = [
    "ConfigError",
    "Evaluation",
    "L1",
    "L2",
    "Linf",
    "Recipe",
    "Run",
    "SampleStreams",
    "TrainOptions",
    "TrainResult",
    "Verdict",
    "analysis",
    "attacks",
    "audit",
    "auditing",
    "backward_mode",
    "build",
    "check",
    "data",
    "defences",
    "encoders",
    "evaluate",
    "export",
    "foreign",
    "kernels",
    "load_recipe",
    "models",
    "neurons",
    "randomness",
    "record",
    "report",
    "reporting",
    "rng",
    "run_demo",
    "stream",
    "train",
]

_MODULES = [
    "analysis",
    "attacks",
    "auditing",
    "data",
    "defences",
    "encoders",
    "export",
    "kernels",
    "models",
    "neurons",
    "reporting",
    "rng",
]
_NAMES = {
    "attacks": ("L1", "L2", "Linf"),
    "auditing": ("Verdict", "audit"),
    "config": ("ConfigError", "Recipe", "build", "load_recipe"),
    "runs.demo": ("run_demo",),
    "evaluation": ("Evaluation", "evaluate"),
    "models.adapters": ("foreign",),
    "neurons": ("backward_mode", "record"),
    "preflight": ("check",),
    "reporting": ("report",),
    "rng": ("SampleStreams", "randomness", "stream"),
    "runs": ("Run",),
    "training": ("TrainOptions", "TrainResult", "train"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("spikeguard")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

"""The options of an attack, read and checked: shared by ``attack``, ``audit`` and ``launch``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.cli.console import allowed_plugins, numbers, words
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.config.plugins import Plugins
    from spikeguard.config.schema import EvaluateSection

__all__ = ["Asked", "asked_of", "require_one", "require_suites"]


@dataclass(frozen=True)
class Asked:
    """The options of an attack, read and checked.

    Attributes:
        changes: Changes to the evaluate section of the recipe; None changes nothing.
        threats: Norm and radius of each threat set that was given in one line.
        plugins: Packages from which parts may be imported.
    """

    changes: dict[str, object]
    threats: Sequence[tuple[str, float]]
    plugins: Plugins

    def plans(self, plan: EvaluateSection) -> list[EvaluateSection]:
        """Return a changed plan for each threat set that was given in one line, or the plan."""
        return [plan.changed(norm=n, eps=[radius]) for n, radius in self.threats] or [plan]


def asked_of(
    *,
    run: Path | None,
    T: int | None,
    data: str | None,
    suite: Sequence[str] | None,
    attack: Sequence[str] | None,
    eps: Sequence[str] | None,
    norm: str | None,
    threat: Sequence[str] | None,
    plugin: Sequence[str] | None,
    **given: object,
) -> Asked:
    """Read the options of ``spikeguard attack`` that say what is attacked, and how.

    Raises:
        ConfigError: If an option is wrong, or they do not fit together.
    """
    from spikeguard.cli.threat_option import parsed_threats

    apart = data is not None or T is not None  # the results of RUN have a folder of their own
    own = ("weights", "framework", "readout", *(() if apart else ("out",)))
    require_one({"run": run, **given}, own)
    if run is not None and T is not None and data is not None:
        raise ConfigError("--T: a run is attacked with other steps or on other data, got both.")
    lines = parsed_threats(threat, eps, norm)
    same = ("limit", "eot", "cascade", "precision", "tune", "seed")
    changes: dict[str, object] = {
        "suite": words(suite) if suite else [] if attack else None,
        "attacks": attack if attack else [] if suite else None,
        "eps": [lines[0][1]] if lines else numbers("--eps", eps) if eps else None,
        "norm": lines[0][0] if lines else norm,
        **{name: given[name] for name in same},
    }
    return Asked(changes, lines, allowed_plugins(plugin, data))


def require_one(given: Mapping[str, object], own: Sequence[str]) -> None:
    """Reject RUN together with --model, neither of them, and options that need --model.

    Args:
        given: The options of a command by name.
        own: Names of those that go with --model.

    Raises:
        ConfigError: In each of these cases.
    """
    run, model = given["run"], given["model"]
    if (run is None) == (model is None):
        both = "both" if run is not None else "neither"
        raise ConfigError(f"expected RUN, a run folder, or --model; got {both}.")
    first = next((name for name in own if given[name] is not None), None)
    if model is None and first is not None:
        other = "--model or --data" if first == "out" else "--model"
        raise ConfigError(f"--{first} goes with {other}; a run has its own.")


def require_suites(plan: EvaluateSection, plugins: Plugins) -> None:
    """Reject unknown suites and attacks, radii that they reject, and parts that are no attacks."""
    from spikeguard.attacks.suites import suite
    from spikeguard.config.attack_lines import build_attack
    from spikeguard.config.builder import build_suite
    from spikeguard.config.plugins import is_reference

    for eps in plan.eps:
        for name in plan.suite:
            if is_reference(name):
                build_suite(name, eps=eps, norm=plan.norm, plugins=plugins)
            else:
                suite(name, eps=eps, norm=plan.norm, eot=plan.eot or 1)
        for line in plan.attacks:
            built = build_suite if is_reference(line) else build_attack
            built(line, eps=eps, norm=plan.norm, where="--attack", plugins=plugins)

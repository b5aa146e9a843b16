"""require_valid(): the command line of a command that runs later, checked as that command would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.cli.console import allowed_plugins
from spikeguard.config.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from spikeguard.config.plugins import Plugins
    from spikeguard.config.schema import EvaluateSection

__all__ = ["SHARED", "WORKERS", "require_valid"]

SHARED = ("train", "attack")  # commands that several ranks run together
WORKERS = ("sweep", "map")  # commands of which several processes share the points

Options = Mapping[str, Any]


def require_valid(command: Sequence[str], ranks: int = 1, *, resume: bool = False) -> None:
    """Check names, options, recipe, run folder and suites; write nothing and train nothing.

    The run folder need not be finished, and the images, weights and factory that an attack or audit
    names are not read: they may be made before the command runs.

    Args:
        command: The words after ``spikeguard``.
        ranks: Number of processes that run it together.
        resume: Whether a training is given ``--resume``, although the command does not say so.

    Raises:
        CycloptsError: If the command line is wrong.
        ValueError: If the command would reject it: an unknown recipe, suite, field or metric.
    """
    from spikeguard.cli.entry import app

    if not command:
        known = ", ".join(_CHECKS)
        raise ConfigError(f"no command; write '-- COMMAND ...' with one of {known}.")
    if command[0] not in _CHECKS:
        raise unknown_name("--", "command", command[0], _CHECKS)
    _, bound, _ = app.parse_args(list(command), exit_on_error=False, print_error=False)
    bound.apply_defaults()
    given = bound.arguments
    if command[0] == "train":
        _train({**given, "resume": resume or given["resume"]}, ranks)
    else:
        _CHECKS[command[0]](given)


def _train(given: Options, ranks: int = 1) -> None:
    from spikeguard.config.builder import build
    from spikeguard.config.schema import load_recipe
    from spikeguard.runs.recipe_training import require_startable
    from spikeguard.training.trainer import require_parts

    named = [] if given["data"] is None else [f"data.name={dumps(given['data'])}"]
    plugins = allowed_plugins(given["plugin"], given["data"])
    recipe = load_recipe(given["recipe"], [*named, *given["changes"]], plugins=plugins)
    out = Path("runs") / recipe.name if given["out"] is None else given["out"]
    require_startable(recipe, out, given["resume"])
    built = build(recipe, given["data_root"])
    require_parts(len(built.data.train), built.options, ranks)


def _attack(given: Options) -> None:
    from spikeguard.cli.attack_request import asked_of, require_suites
    from spikeguard.config.builder import require_tunable

    asked = asked_of(**given)
    plan = _plan_of(given["run"], asked.plugins).changed(**asked.changes)
    for each in asked.plans(plan):
        require_suites(each, asked.plugins)
    if given["tune"]:
        require_tunable(plan)


def _audit(given: Options) -> None:
    from spikeguard.attacks.threat_names import threat_of
    from spikeguard.cli.audit_request import asked_of
    from spikeguard.runs.audits import named_attack

    asked = asked_of(**given)
    plan = _plan_of(given["run"], asked.plugins)
    norm, eps = given["norm"], asked.radius
    if given["run"] is not None and given["data"] is None:
        plan = plan.changed(eps=eps, limit=given["limit"], norm=norm)
        norm, eps = plan.norm, max(plan.eps)
    own = "linf" if given["run"] is None else plan.norm
    threat = threat_of(norm or own, max(plan.eps) if eps is None else eps)
    if given["attack"] is not None:
        named_attack(given["attack"], threat, asked.plugins)


def _plan_of(run: Path | None, plugins: Plugins) -> EvaluateSection:
    """Return the evaluate section of a run's recipe; the default one without a run."""
    from spikeguard.config.schema import EvaluateSection, load_recipe
    from spikeguard.storage.run_folder import RECIPE, no_such_run

    if run is None:
        return EvaluateSection()
    if not run.is_dir():
        raise ConfigError(no_such_run(run))
    return load_recipe(run / RECIPE, plugins=plugins).evaluate


def _sweep(given: Options) -> None:
    from spikeguard.cli.commands.sweep import sweep_of
    from spikeguard.sweeps.engine import require_runnable

    found, _ = sweep_of(**given)
    require_runnable(found, given["jobs"])


def _map(given: Options) -> None:
    from spikeguard.cli.commands.map import map_of
    from spikeguard.sweeps.engine import require_runnable

    found, _ = map_of(**given)
    require_runnable(found.sweep, given["jobs"])


_CHECKS: dict[str, Callable[[Options], None]] = {
    "train": _train,
    "attack": _attack,
    "audit": _audit,
    "sweep": _sweep,
    "map": _map,
}

"""require_valid(): the command line of a command that runs later, checked as that command would."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from json import dumps
from typing import TYPE_CHECKING, Any

from spikeguard.cli.console import allowed_plugins, numbers, words
from spikeguard.config.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from spikeguard.config.plugins import Plugins

__all__ = ["SHARED", "WORKERS", "require_valid"]

SHARED = ("train", "attack")  # commands that several ranks run together
WORKERS = ("sweep", "map")  # commands of which several processes share the points

Options = Mapping[str, Any]


def require_valid(command: Sequence[str]) -> None:
    """Check names, options, recipe, run folder and suites; write nothing and train nothing.

    Args:
        command: The words after ``spikeguard``.

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
    _CHECKS[command[0]](bound.arguments)


def _train(given: Options) -> None:
    named = [] if given["data"] is None else [f"data.name={dumps(given['data'])}"]
    plugins = allowed_plugins(given["plugin"], given["data"])
    _build(given, [*named, *given["changes"]], plugins)


def _build(given: Options, changes: Sequence[str], plugins: Plugins | None = None) -> None:
    """Build everything that a recipe names, from its data on."""
    from spikeguard.config.builder import build
    from spikeguard.config.schema import load_recipe

    allowed = allowed_plugins(given["plugin"]) if plugins is None else plugins
    build(load_recipe(given["recipe"], changes, plugins=allowed), given["data_root"])


def _attack(given: Options) -> None:
    from spikeguard.cli.commands.attack import require_one, require_suites
    from spikeguard.cli.threat_option import parsed_threats
    from spikeguard.config.schema import EvaluateSection, load_recipe
    from spikeguard.storage.run_folder import RECIPE, no_such_run

    run, plugins = given["run"], allowed_plugins(given["plugin"], given["data"])
    require_one(run, given["model"], {})
    plan = EvaluateSection()
    if run is not None:
        if not run.is_dir():
            raise ConfigError(no_such_run(run))
        plan = load_recipe(run / RECIPE, plugins=plugins).evaluate
    lines = parsed_threats(given["threat"], given["eps"], given["norm"])
    suite, attack = given["suite"], given["attack"]
    changes = {
        "suite": words(suite) if suite else [] if attack else None,
        "attacks": attack if attack else [] if suite else None,
        "eps": [lines[0][1]] if lines else numbers("--eps", given["eps"]) if given["eps"] else None,
        "norm": lines[0][0] if lines else given["norm"],
    }
    same = {name: given[name] for name in ("limit", "eot", "cascade", "precision", "tune", "seed")}
    plan = plan.changed(**changes, **same)
    for each in [plan.changed(norm=n, eps=[radius]) for n, radius in lines] or [plan]:
        require_suites(each, plugins)


def _audit(given: Options) -> None:
    from spikeguard.cli.commands.attack import require_one
    from spikeguard.storage.run_folder import no_such_run

    require_one(given["run"], given["model"], {})
    if given["run"] is not None and not given["run"].is_dir():
        raise ConfigError(no_such_run(given["run"]))


def _sweep(given: Options) -> None:
    from spikeguard.cli.commands.sweep import fields_of, seconds_of
    from spikeguard.sweeps.metrics import parse_metric
    from spikeguard.sweeps.space import changes_of

    changes, dimensions = fields_of(given["fields"])
    changes += changes_of({each.field: each.values[0] for each in dimensions})
    _build(given, changes)
    for name in ("maximise", "minimise", "measure"):
        for text in words(given[name] or []):
            parse_metric(text)
    seconds_of(given["budget"])


def _map(given: Options) -> None:
    from spikeguard.cli.commands.sweep import seconds_of
    from spikeguard.sweeps.space import changes_of, parse_dimension

    plane = [parse_dimension(given[name]) for name in ("x", "y")]
    changes = [*given["changes"], *changes_of({each.field: each.values[0] for each in plane})]
    _build(given, changes)
    seconds_of(given["budget"])


_CHECKS: dict[str, Callable[[Options], None]] = {
    "train": _train,
    "attack": _attack,
    "audit": _audit,
    "sweep": _sweep,
    "map": _map,
}

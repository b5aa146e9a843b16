"""Names of attack results: the file name holds all settings in which results can differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from spikeguard.config.attack_lines import is_line, line_eot
from spikeguard.config.builder import tunable_suites
from spikeguard.config.plugins import NO_PLUGINS, Plugins
from spikeguard.config.schema import EvaluateSection, eps_text

__all__ = ["attack_name", "checkpoint_tag", "find_result", "line_text"]

_LONGEST = 120  # characters of an attack line in a file name


def attack_name(
    suite: str, eps: float, plan: EvaluateSection, plugins: Plugins = NO_PLUGINS
) -> str:
    """Return the name of a result: all settings in which results of the same run can differ.

    The name of an attack of another package holds the version of the package: a result of one
    version is never read as that of another.

    Example:
        >>> attack_name("quick", 8 / 255, EvaluateSection(limit=100))
        'quick-linf-8_255-first100'
    """
    from spikeguard.attacks.suite_definitions import CASCADES

    if is_line(suite):
        plan = plan.changed(eot=line_eot(suite))
    from_package = ":" in suite
    version = plugins.versions().get(re.split(r"[.:]", suite)[0]) if from_package else None
    named = _file_text(line_text(suite)) if is_line(suite) else suite.replace(":", ".")
    named += f"@{version}" if version else ""
    parts = [named, plan.norm.replace(" ", "_"), eps_text(eps).replace("/", "_")]
    parts += [f"eot{plan.eot}"] if plan.eot is not None and plan.eot > 1 else []
    parts += [f"draws{plan.draws}"] if plan.draws is not None else []
    parts += [f"first{plan.limit}"] if plan.limit is not None else []
    parts += [f"seed{plan.seed}"] if plan.seed is not None else []
    if plan.cascade is not None and plan.cascade != (suite in CASCADES):
        parts.append("cascade" if plan.cascade else "each")
    parts += ["tuned"] if plan.tune and (from_package or tunable_suites([suite])) else []
    parts += [plan.precision] if plan.precision != "32" else []
    parts += [checkpoint_tag(plan)] if checkpoint_tag(plan) else []
    return "-".join(parts)


def find_result(
    folder: Path, suite: str, eps: float, plan: EvaluateSection, plugins: Plugins = NO_PLUGINS
) -> Path | None:
    """Return the file name, without suffix, of a finished result of a plan; None if there is none.

    Where the plan leaves open how many gradients are averaged, or the suite has no setting to tune
    for the network, the result itself says what kind of network it is of.

    Args:
        folder: Folder of the results of one model.
        suite: Name of an attack suite, an attack line, or ``package.module:Attack``.
        eps: Radius of the threat set.
        plan: The evaluate section of a recipe.
        plugins: Packages from which an attack may be imported.

    Raises:
        ValueError: If a file is damaged: one line that names it.
    """
    from spikeguard.attacks.model_access import DEFAULT_EOT
    from spikeguard.evaluation.result import Evaluation

    stated = line_eot(suite)
    fixed = stated if is_line(suite) and stated is not None else plan.eot
    filled = {False: fixed or 1, True: fixed or stated or DEFAULT_EOT}  # by whether it is noisy
    for eot, tune in product(set(filled.values()), {plan.tune, False}):
        stem = folder / attack_name(suite, eps, plan.changed(eot=eot, tune=tune), plugins)
        if not stem.with_name(f"{stem.name}.json").exists():
            continue
        found = Evaluation.load(stem)
        complete = tune == plan.tune or not _has_tunable(found.settings)
        if complete and eot == filled[found.stochastic]:
            return stem
    return None


def _has_tunable(settings: Any) -> bool:
    """Whether attacks use a gradient with a setting to choose on validation images."""
    from spikeguard.attacks.tuning import CANDIDATES

    if not isinstance(settings, Mapping):
        return False
    return settings.get("kind") in CANDIDATES or any(map(_has_tunable, settings.values()))


def line_text(line: str) -> str:
    """Return an attack line in its shortest form, without ``eot``, with the module of a plugin."""
    from spikeguard.attacks.attack_lines import parse_line

    parsed = parse_line(line)
    return f"{parsed.name} {parsed.label.partition(' ')[2]}".strip()


def _file_text(line: str) -> str:
    """Return an attack line as part of a file name; a long one is cut and ends in its digest."""
    text = re.sub(r"[^\w.=+@-]", "_", line.replace(":", "."))
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}~{hashlib.sha256(line.encode()).hexdigest()[:12]}"


def checkpoint_tag(plan: EvaluateSection) -> str:
    """Return the name of the attacked checkpoint; empty for that of the best epoch."""
    return plan.checkpoint if plan.checkpoint != "best" else ""

"""Analyses named on the command line, such as ``"weight-landscape span=0.1 points=31"``."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from spikeguard.config.errors import ConfigError, ConfigPath, unknown_name
from spikeguard.config.instantiate import instantiate

if TYPE_CHECKING:
    from spikeguard.analysis.base import Analysis
    from spikeguard.attacks.base import Attack

__all__ = ["analysis_name", "build_analysis", "takes_attack"]

_GIVEN = {"attack"}  # settings that have an option of their own


def takes_attack(line: str) -> bool:
    """Whether an analysis applies an attack."""
    from spikeguard.analysis.registry import ANALYSES

    known = ANALYSES.get(line.split()[0]) if line.split() else None
    return known is not None and "attack" in inspect.signature(known).parameters


def build_analysis(
    line: str,
    *,
    attack: Attack,
    limit: int | None = None,
) -> Analysis:
    """Return the analysis of a line: its name and settings as words ``key=value``.

    Args:
        line: The line.
        attack: For analyses that apply one; it states the threat set.
        limit: Number of images; that of the line, or of the analysis, when None.

    Raises:
        ConfigError: If the name or a key is unknown, or a value has the wrong type or is rejected.
    """
    from spikeguard.analysis.registry import ANALYSES
    from spikeguard.attacks.attack_lines import parse_line

    place = ConfigPath("", f"analyse {line!r}")
    for key in {word.partition("=")[0].partition(".")[0] for word in line.split()[1:]} & _GIVEN:
        raise ConfigError(f"{place}: write --{key} for {key}.")
    try:
        parsed = parse_line(line)
    except ValueError as error:
        raise ConfigError(f"analyse: {error}.") from error
    if parsed.name not in ANALYSES:
        raise unknown_name("analyse", "analysis", parsed.name, ANALYSES)
    if parsed.eot is not None:
        raise ConfigError(f"{place}: eot is of an attack; write it in --attack.")
    entry: dict[str, Any] = {"name": parsed.name, **parsed.options}
    if limit is not None and "limit" in inspect.signature(ANALYSES[parsed.name]).parameters:
        entry.setdefault("limit", limit)
    found: Analysis = instantiate(ANALYSES, entry, place, attack=attack)
    images = getattr(found, "limit", None)
    if images is not None and images < 1:
        raise ConfigError(f"{place}: limit is a number of images >= 1, got {images}.")
    return found


def analysis_name(line: str, attack: str) -> str:
    """Return the file name of a result, without suffix: the line and, if it has one, the attack.

    Args:
        line: The line; words in any order, and without those of an empty value, give the same
            name.
        attack: Text for the attack and its threat set, such as "pgd7-linf-8_255".

    Example:
        >>> analysis_name("weight-landscape span=0.1 points=31", "pgd7-linf-0.1")
        'weight-landscape-points=31-span=0.1-pgd7-linf-0.1'
    """
    name, *settings = line.replace("/", "_").split()
    parts = [name, *sorted(word for word in settings if not word.endswith("="))]
    return "-".join([*parts, attack] if takes_attack(line) else parts)

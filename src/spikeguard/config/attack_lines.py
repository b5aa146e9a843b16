"""Attack lines of users: checked against the registry as an entry of a recipe is, then built."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from spikeguard.config.errors import ConfigError, ConfigPath, unknown_name
from spikeguard.config.instantiate import instantiate
from spikeguard.config.plugins import NO_PLUGINS, Plugins, is_reference

if TYPE_CHECKING:
    from spikeguard.attacks.attack_lines import AttackLine
    from spikeguard.attacks.base import Attack

__all__ = ["build_attack", "is_line", "line_eot"]


def is_line(name: str) -> bool:
    """Whether a name is an attack line; the others are suites and references without settings."""
    from spikeguard.attacks.suite_definitions import SUITES

    return name not in SUITES and not is_reference(name)


def build_attack(
    line: str,
    *,
    eps: float,
    norm: str,
    eot: int = 1,
    where: ConfigPath | str = "--attack",
    plugins: Plugins = NO_PLUGINS,
) -> dict[str, Attack]:
    """Return the attack of a line, by the line's label.

    A name that a suite gives to one of its attacks, such as "pgd40", stands for that attack.

    Args:
        line: See :mod:`spikeguard.attacks.attack_lines`.
        eps: Radius of the threat set.
        norm: "linf", "l2", "l1", or a threat on events.
        eot: Gradients averaged in every step, where the line does not say.
        where: Path in the recipe or option, for messages.
        plugins: Packages that may be imported.

    Raises:
        ConfigError: If a name or a key is unknown, or a value has the wrong type or is rejected.
    """
    from spikeguard.attacks.attack_lines import averaged, parse_line
    from spikeguard.attacks.registry import ATTACKS
    from spikeguard.attacks.suitability import require_threats
    from spikeguard.attacks.suite_definitions import SUITES
    from spikeguard.attacks.suites import attack_by_name, attack_names
    from spikeguard.attacks.threat_names import threat_of

    place = ConfigPath("", f"{where} {line!r}")
    try:
        parsed = parse_line(line)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}.") from error
    name = parsed.name
    if name in SUITES:
        raise ConfigError(f"{place}: {name} is a suite; write --suite {name}.")
    if name not in ATTACKS and not is_reference(name):
        if name not in attack_names():
            known = {*ATTACKS, *attack_names()}
            near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
            shown = {*ATTACKS, *near} if parsed.options else known
            raise unknown_name(where, "attack", name, shown)
        if parsed.options:
            raise ConfigError(f"{place}: {name} of a suite has its settings; write {name} alone.")
        return {name: attack_by_name(name, eps=eps, norm=norm, eot=parsed.eot or eot)}
    _require_own_keys(parsed, place)
    built: Attack = instantiate(
        ATTACKS, parsed.entry(eps), place, plugins=plugins, threat=threat_of(norm, eps)
    )
    if parsed.eot is not None and not hasattr(built, "gradient"):
        raise ConfigError(f"{place}: {name} has no gradient to average; leave eot out.")
    try:
        require_threats([built])
    except ValueError as error:
        raise ConfigError(f"{place}: {error}") from error
    return {parsed.label: averaged(built, parsed.eot or eot)}


def _require_own_keys(line: AttackLine, where: ConfigPath) -> None:
    """Say where a setting belongs that is not the attack's: to the command, or to a part."""
    from spikeguard.attacks.attack_lines import PARTS
    from spikeguard.attacks.registry import ATTACKS

    for key in line.options.keys() & {"eps", "norm", "threat"}:
        raise ConfigError(f"{where}: {key} is not of the attack; write --eps and --norm.")
    if line.name not in ATTACKS:
        return
    own = inspect.signature(ATTACKS[line.name]).parameters
    gradient = line.options.get("gradient")
    parts = {"gradient": gradient}
    if isinstance(gradient, Mapping):
        parts["surrogate"] = gradient.get("surrogate")
    for part, chosen in parts.items():
        name = chosen.get("name") if isinstance(chosen, Mapping) else chosen
        factory = PARTS[part].get(str(name))
        inside = {} if factory is None else inspect.signature(factory).parameters
        for key in line.options:
            if key in inside and key not in own:
                raise ConfigError(f"{where}: {key} is a setting of {name}; write {part}.{key}.")


def line_eot(name: str) -> int | None:
    """Return the gradients averaged per step that a line or a suite states; None where none does.

    A line's number holds for every model, a suite's for models that draw noise.
    """
    from spikeguard.attacks.attack_lines import parse_line
    from spikeguard.attacks.listed_suites import LISTED

    if name in LISTED:
        return LISTED[name].eot
    return parse_line(name).eot if is_line(name) else None

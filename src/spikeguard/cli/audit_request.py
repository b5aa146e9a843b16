"""The options of an audit, read and checked: shared by ``audit`` and ``launch``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spikeguard.cli.attack_request import require_one
from spikeguard.cli.console import allowed_plugins, numbers
from spikeguard.config.errors import ConfigError

if TYPE_CHECKING:
    from spikeguard.auditing.numbers import Claim
    from spikeguard.config.plugins import Plugins
    from spikeguard.runs.audits import How

__all__ = ["Asked", "asked_of"]


@dataclass(frozen=True)
class Asked:
    """The options of an audit, read and checked.

    Attributes:
        how: How the model is judged, and which number.
        least: The bound below which the exit code is 6, in [0, 1]; or None.
        radius: Radius of the threat set; None for the recipe's.
        plugins: Packages from which parts may be imported.
    """

    how: How
    least: float | None
    radius: float | None
    plugins: Plugins


def asked_of(
    *,
    data: str | None,
    eps: str | None,
    limit: int | None,
    attack: str | None,
    tune: bool,
    quick: bool,
    seed: int | None,
    printed: float | None,
    protocol: str | None,
    printed_n: int | None,
    max_gap: float,
    min_robust: float | None,
    check: bool,
    plugin: Sequence[str] | None,
    **given: object,
) -> Asked:
    """Read the options of :func:`audit` that say what is audited, and how it is judged.

    Raises:
        ConfigError: If an option is wrong, or they do not fit together.
        ValueError: If the printed number or its protocol is wrong.
    """
    require_one(given, ("weights", "T", "framework", "readout", *(() if data else ("out",))))
    how: How = {
        "budget": "quick" if quick else "full",
        "limit": limit,
        "attack": attack,
        "tune": tune,
        "seed": seed,
        "check": check,
        "printed": _claim(printed, protocol, printed_n, attack),
        "max_gap": _share("--max-gap", max_gap),
    }
    least = None if min_robust is None else _share("--min-robust", min_robust)
    radius = None if eps is None else _radius(eps)
    if seed is not None and seed < 0:
        raise ConfigError(f"--seed: a whole number >= 0, got {seed}.")
    return Asked(how, least, radius, allowed_plugins(plugin, data))


def _radius(text: str) -> float:
    """Read the one radius of an audit."""
    found = numbers("--eps", [text])
    if len(found) != 1:
        raise ConfigError(
            f"--eps: an audit has one radius, got {text!r}; write a decimal point, as in 0.1."
        )
    return found[0]


def _claim(
    printed: float | None, protocol: str | None, n: int | None, attack: str | None
) -> Claim | None:
    from spikeguard.auditing.numbers import Claim

    if printed is None:
        if protocol is not None or n is not None:
            raise ConfigError("--protocol and --printed-n describe --printed, which is missing.")
        return None
    if attack is not None:
        raise ConfigError("--printed and --attack both name the printed number; give one.")
    return Claim.from_text(printed, protocol or "", n)


def _share(option: str, percentage: float) -> float:
    if not 0 <= percentage <= 100:
        raise ConfigError(f"{option}: a number in [0, 100], got {percentage:g}.")
    return percentage / 100

"""The option ``--threat``: threat sets in one line each, next to ``--norm`` and ``--eps``."""

from __future__ import annotations

from collections.abc import Sequence

from spikeguard.config.errors import ConfigError

__all__ = ["parsed_threats", "threat_text"]


def parsed_threats(
    lines: Sequence[str] | None, eps: Sequence[str] | None, norm: str | None
) -> list[tuple[str, float]]:
    """Return norm and radius of each line; none without ``--threat``.

    Raises:
        ConfigError: If a line is no threat set, one is given twice, or the radius or the norm is
            given too.
    """
    from spikeguard.attacks.threat_names import parse_threat

    if not lines:
        return []
    if eps or norm:
        other = "--eps" if eps else "--norm"
        raise ConfigError(f"--threat has its own radius and norm; leave {other} out.")
    found = []
    for line in lines:
        try:
            found.append(parse_threat(line))
        except ValueError as error:
            said = str(error)
            said += "" if said.endswith((".", "?")) else "."
            raise ConfigError(f"--threat {line!r}: {said}") from error
        if found[-1][1] <= 0:
            raise ConfigError(f"--threat {line!r}: a radius of 0 allows no change.")
    if len(set(found)) < len(found):
        raise ConfigError("--threat: a threat set is given twice.")
    return found


def threat_text(norm: str, eps: float) -> str:
    """Write a threat set: "linf eps 8/255", "flips budget=50"."""
    from spikeguard.attacks.threat_names import is_event_norm, threat_line
    from spikeguard.config.schema import eps_text

    return threat_line(norm, eps) if is_event_norm(norm) else f"{norm} eps {eps_text(eps)}"

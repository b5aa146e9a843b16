"""Verdict cards at the top of the report: printed number, worst case and audit of a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spikeguard.attacks.threat_names import is_event_norm
from spikeguard.auditing.findings import Verdict
from spikeguard.reporting import formatting
from spikeguard.reporting.charts.base import Look
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.standings import Radius, Standing, where

__all__ = [
    "Badge",
    "Card",
    "Line",
    "audited_at",
    "badge",
    "cards",
    "command",
    "verdict_badges",
    "verdict_statements",
]

_SYMBOLS = {
    "no fault found": ("·", "quiet"),  # never a praise beside a number that is too high
    "pass": ("✓", "good"),
    "faulty": ("✗", "bad"),
    "fail": ("✗", "bad"),
    "open": ("?", "open"),
    "not run": ("–", "open"),
    "does not apply": ("·", "quiet"),
}

_NOTABLE = 0.01  # a smaller gap can come from the noise draws of a stochastic network


@dataclass(frozen=True)
class Badge:
    """A status as symbol and word; ``tone`` sets its colour."""

    symbol: str
    word: str
    tone: str


@dataclass(frozen=True)
class Line:
    """One row of a card: the network at one radius."""

    where: str
    standing: Standing
    printed: str | None


@dataclass(frozen=True)
class Card:
    """Verdict on one network."""

    label: str
    look: Look
    badges: tuple[Badge, ...]
    audited_at: str
    sentence: str
    lines: tuple[Line, ...]
    audit: tuple[str, ...]
    hints: tuple[str, ...]


def badge(status: str | None) -> Badge:
    """Return the badge for the status of an audit or a check; None means "not run"."""
    word = "not run" if status is None else status
    symbol, tone = _SYMBOLS.get(word, ("?", "open"))
    return Badge(symbol, word, tone)


def verdict_badges(verdict: Verdict | None) -> tuple[Badge, ...]:
    """Return the badges of an audit: the printed number, then the bound."""
    if verdict is None:
        return (badge(None),)
    if verdict.earlier:
        return (Badge("–", "audit of an earlier version", "open"),)
    bound = badge(verdict.status)
    bound = Badge(bound.symbol, f"bound: {bound.word}", bound.tone)
    printed = verdict.printed
    if printed is None or printed.status == "not judged":
        return (Badge("–", "printed: not judged", "open"), bound)
    if printed.status == "refuted" and printed.gap is not None:
        return (Badge("✗", f"printed: {formatting.points(printed.gap)} too high", "bad"), bound)
    return (Badge("✓", "printed: within", "good"), bound)


def verdict_statements(verdict: Verdict | None) -> tuple[str, ...]:
    """Return the sentences of an audit: on the printed number, then on the bound."""
    if verdict is None:
        return ()
    if verdict.earlier:
        n = "" if verdict.bound.n is None else f" (n = {verdict.bound.n})"
        value = verdict.upper_bound
        bound = "" if value is None else f": at most {formatting.percent(value)}{n}"
        return (
            f"Audit of an earlier version, which judged only the worst of its own attacks{bound}; "
            "audit again to judge both numbers.",
        )
    printed = () if verdict.printed is None else (verdict.printed.statement,)
    return (*printed, verdict.bound.statement)


def audited_at(verdict: Verdict | None) -> str:
    """Write threat set and samples of an audit: "at L∞, ε = 0.1, n = 100"; empty if not stored."""
    threat = _audited_threat(verdict)
    if verdict is None or threat is None or "samples" not in verdict.settings:
        return ""
    samples = formatting.count(int(verdict.settings["samples"]))
    return f"at {formatting.threat(*threat)}, n = {samples}"


def _audited_threat(verdict: Verdict | None) -> tuple[str, float] | None:
    """Return norm and radius of an audit; None where not stored."""
    threat = {} if verdict is None else verdict.settings.get("threat") or {}
    if not {"norm", "eps"} <= threat.keys():
        return None
    return str(threat["norm"]), float(threat["eps"])


def _unverified(verdict: Verdict | None) -> str:
    """Mark an audit of a version that did not store what was audited."""
    return "" if verdict is None or verdict.verified else ", older version"


def command(verb: str, network: Network, *options: str) -> str:
    """Write a command line for a run folder or a foreign model."""
    if network.foreign is not None:
        options = (*network.foreign.arguments, "--out", str(network.path), *options)
        return formatting.shell("spikeguard", verb, *options)
    return formatting.shell("spikeguard", verb, str(network.path), *options)


def cards(
    networks: Sequence[Network], places: Sequence[Radius], look: dict[str, Look]
) -> list[Card]:
    """Return one verdict card for each network."""
    return [_card(network, places, look[network.label]) for network in networks]


def _card(network: Network, places: Sequence[Radius], look: Look) -> Card:
    found = [(place, s) for place in places if (s := place.standings[network.label]) is not None]
    audited, hints = network.audited, []
    if not found:
        hints.append(command("attack", network))
    elif not any(s.swept for _, s in found):
        hints.append(command("attack", network, "--suite", "surrogates"))
    if audited is None:
        hints.append(command("audit", network))
    return Card(
        label=network.label,
        look=look,
        badges=verdict_badges(audited),
        audited_at=audited_at(audited) + _unverified(audited),
        sentence=_sentence(found, audited),
        lines=tuple(Line(where(p, places), s, _printed(s)) for p, s in found),
        audit=verdict_statements(audited),
        hints=tuple(hints),
    )


def _sentence(found: Sequence[tuple[Radius, Standing]], audited: Verdict | None) -> str:
    """Compare the number a paper would print with the worst case, in one sentence.

    Empty where the audit judges the printed number in the threat set with the largest gap.
    """
    gaps = [(s.gap, place, s) for place, s in found if s.gap is not None]
    if not found:
        return "Not attacked yet: nothing is known about its robustness."
    if not gaps:
        return (
            "PGD with its own surrogate was not run, so there is no number to compare with papers."
        )
    gap, place, standing = max(gaps, key=lambda item: item[0])
    judged = audited is not None and audited.printed is not None
    if judged and _audited_threat(audited) == (place.norm, place.eps):
        return ""
    own = f"{_printed(standing)} with its own surrogate"
    worst, n = formatting.percent(standing.worst_case.accuracy), standing.worst_case.n
    norm = "" if is_event_norm(place.norm) else f"{formatting.norm(place.norm)}, "
    if gap >= _NOTABLE:
        return (
            f"At {formatting.radius(place.eps, place.norm)} ({norm}n = {n}) {own} is "
            f"{formatting.points(gap)} too optimistic: at most {worst} survive in the worst case."
        )
    if any(s.swept for _, s in found):
        return (
            f"{own} comes within 1 point of the worst case at every radius; a stronger attack may "
            "still go lower."
        )
    return (
        f"Only the gradient of its own surrogate was tried: {worst} is just the number a paper "
        "would print."
    )


def _printed(standing: Standing) -> str | None:
    return None if standing.printed is None else formatting.attack(standing.printed)

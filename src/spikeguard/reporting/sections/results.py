"""One line for each section of the report: its result, shown while the section is folded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spikeguard.analysis.texts import span
from spikeguard.reporting import formatting
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.published_numbers import Comparison
from spikeguard.reporting.standings import Radius, where

__all__ = ["section_results"]


def section_results(
    networks: Sequence[Network], places: Sequence[Radius], printed: Sequence[Comparison]
) -> dict[str, str]:
    """Return the result of each section in one line, by the section's id."""
    return {
        "attacks": _attacks(places),
        "printed": _printed(printed),
        "radius": _radius(places),
        "membrane": _membrane(networks),
        "audit": _audit(networks),
        "training": _training(networks),
        "recipe": _recipe(networks),
        "words": "Upper bound, own surrogate, worst case, zero input gradient, interval",
    }


def _attacks(places: Sequence[Radius]) -> str:
    found = []
    for place in places:
        worst = {label: s.worst_case.accuracy for label, s in place.attacked.items()}
        found.append(f"{where(place, places)}: at most {span(worst, formatting.percent)}")
    return "; ".join(found) or "No attacks were run"


def _printed(printed: Sequence[Comparison]) -> str:
    pairs = [pair for each in printed for pair in each.pairs]
    measured = sum(pair.ours is not None for pair in pairs)
    return f"{len(pairs)} published numbers, {measured} with a measurement beside them"


def _radius(places: Sequence[Radius]) -> str:
    gaps = [
        (standing.gap, label, place)
        for place in places
        for label, standing in place.attacked.items()
        if standing.gap is not None
    ]
    if not gaps:
        return "No gap between a printed number and the worst case was measured"
    gap, label, place = max(gaps, key=lambda each: each[0])
    whose = f"{label}, " if _several(place.standings) else ""
    return (
        f"Largest gap between the printed number and the worst case: {formatting.points(gap)} "
        f"({whose}{where(place, places)})"
    )


def _membrane(networks: Sequence[Network]) -> str:
    near = {n.label: n.membrane.near_threshold for n in networks if n.membrane is not None}
    return (
        f"Potentials near the threshold: {span(near, formatting.percent)}"
        if near
        else "Not measured"
    )


def _audit(networks: Sequence[Network]) -> str:
    verdicts = [network.audited for network in networks if network.audited is not None]
    if not verdicts:
        return "Not run"
    refuted = sum(verdict.refuted for verdict in verdicts)
    statuses = [verdict.status for verdict in verdicts]
    if len(networks) == 1:
        return f"Printed number {'too high' if refuted else 'not refuted'}; bound: {statuses[0]}"
    parts = [f"{refuted} of {len(verdicts)} printed numbers too high"]
    counts = [f"{statuses.count(each)} {each}" for each in dict.fromkeys(statuses)]
    parts.append("bounds: " + ", ".join(counts))
    if len(verdicts) < len(networks):
        parts.append(f"{len(networks) - len(verdicts)} not audited")
    return "; ".join(parts)


def _training(networks: Sequence[Network]) -> str:
    best = {
        n.label: n.trained.val_accuracy
        for n in networks
        if n.trained is not None and n.trained.val_accuracy is not None
    }
    if not best:
        return "No validation images"
    return f"Validation accuracy of the best epoch: {span(best, formatting.percent)}"


def _recipe(networks: Sequence[Network]) -> str:
    sets = ", ".join(dict.fromkeys(network.data for network in networks))
    trained = any(network.recipe_text for network in networks)
    return f"{sets}: settings, {'software, commands and recipes' if trained else 'commands'}"


def _several(labels: Iterable[str]) -> bool:
    return len(list(labels)) > 1

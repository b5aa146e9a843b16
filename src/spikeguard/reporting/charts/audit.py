"""Charts of the curves behind an audit: one small chart for each kind and network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spikeguard.reporting.charts.base import Chart, Look
from spikeguard.reporting.charts.climbing import accuracy_by_eps, accuracy_by_step, loss_by_step
from spikeguard.reporting.charts.gradients import accuracy_by_surrogate, silent_layers
from spikeguard.reporting.readers.collect import Network

__all__ = ["KINDS", "Kind", "audited"]


@dataclass(frozen=True)
class Kind:
    """One kind of curve that an audit stores.

    Attributes:
        id: Prefix of the ids of its charts.
        title: Heading of the charts.
        reading: How to read it.
        codes: Checks that store the curve; the first one is the main one.
    """

    id: str
    title: str
    reading: str
    codes: tuple[str, ...]


KINDS = (
    Kind(
        "climb",
        "Loss over the steps of the attack",
        "It should be flat at the end: a loss that still grows needs more steps. Line: mean; band: "
        "the middle half of the samples. The check judges the shaded steps.",
        ("G10",),
    ),
    Kind(
        "steps",
        "Accuracy over the steps of the attack",
        "It should be flat at the end, and twice the steps should not lower it (markers). "
        "Line: one search; band and bars: 95 % intervals.",
        ("G8", "G10"),
    ),
    Kind(
        "eps",
        "Accuracy against ε",
        "It should never rise. It should fall below chance where all images can be made grey, and "
        "to 0 % where any image is allowed (open markers); otherwise the attack is too weak. "
        "Black bar: the worst of all attacks.",
        ("G7", "G6", "G5"),
    ),
    Kind(
        "surrogate",
        "Accuracy by the attacker’s surrogate",
        "Points far below the star: an attack with that surrogate is stronger than one with the "
        "own surrogate. Filled: triangles; open: own surrogate, scaled.",
        ("S4",),
    ),
    Kind(
        "layers",
        "Share of each layer that passes no gradient",
        "Near 100 % the gradient of all earlier layers depends on few neurons. Input left, output "
        "right; dotted: the limit of S7.",
        ("S7", "S8"),
    ),
)

_DRAWN = {
    "climb": loss_by_step,
    "steps": accuracy_by_step,
    "eps": accuracy_by_eps,
    "surrogate": accuracy_by_surrogate,
    "layers": silent_layers,
}


def audited(networks: Sequence[Network], look: Mapping[str, Look]) -> dict[str, dict[str, Chart]]:
    """Return the charts of all curves that the audits stored, by kind and network."""
    charts: dict[str, dict[str, Chart]] = {}
    for kind in KINDS:
        for place, network in enumerate(networks):
            drawn = _DRAWN[kind.id](network.evidence, look[network.label])
            if drawn is not None:
                figure, values = drawn
                summary = f"{kind.title}, {network.label}: {values}."
                caption = f"{network.label}: {kind.title}"
                chart = Chart(f"audit-{kind.id}-{place}", network.label, summary, figure, caption)
                charts.setdefault(kind.id, {})[network.label] = chart
    return charts

"""The curves behind an audit, one small chart a network: does the attack do what it should?"""

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
    """One question that the audit answers with a curve.

    Attributes:
        id: Of its charts.
        title: What is shown.
        reading: What to look for.
        codes: The checks that keep the curve, the first one foremost.
    """

    id: str
    title: str
    reading: str
    codes: tuple[str, ...]


KINDS = (
    Kind(
        "climb",
        "Loss over the steps of the attack",
        "It should be flat at the end: a loss that still grows wants more steps. Line: mean; band: "
        "the middle half of the samples. The shaded steps are judged.",
        ("G10",),
    ),
    Kind(
        "steps",
        "Accuracy over the steps of the attack",
        "It should be flat at the end, and twice the steps should find no more (markers). "
        "Line: one search; band and bars: 95 % intervals.",
        ("G8", "G10"),
    ),
    Kind(
        "eps",
        "Accuracy against ε",
        "It should never rise, fall below chance where all images can be made grey, and to 0 % "
        "where any image is allowed (open markers): what is left was not attacked. Black bar: "
        "the worst of all attacks.",
        ("G7", "G6", "G5"),
    ),
    Kind(
        "surrogate",
        "Accuracy by the attacker’s surrogate",
        "Points far below the star are attackers that a number with the own surrogate overlooks. "
        "Filled: triangles; open: the own one, scaled.",
        ("S4",),
    ),
    Kind(
        "layers",
        "Share of each layer that passes no gradient",
        "Near 100 % almost nothing comes through, and the gradient of all layers before is made by "
        "few neurons. Input left, output right; dotted: the limit of S7.",
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
    """Return, by kind and network, the charts of all curves that the audits kept."""
    charts: dict[str, dict[str, Chart]] = {}
    for kind in KINDS:
        for place, network in enumerate(networks):
            drawn = _DRAWN[kind.id](network.evidence, look[network.label])
            if drawn is not None:
                figure, said = drawn
                summary = f"{kind.title}, {network.label}: {said}."
                chart = Chart(f"audit-{kind.id}-{place}", network.label, summary, figure)
                charts.setdefault(kind.id, {})[network.label] = chart
    return charts

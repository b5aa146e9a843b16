"""Tables of the report: accuracies by attack, and the checks of the audits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spikeguard.analysis.texts import shared
from spikeguard.auditing.findings import Finding
from spikeguard.evaluation.activity import ActivityCost
from spikeguard.evaluation.search_record import BEFORE
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.readers.attack_results import CASCADE, TUNED
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.audit_findings import by_question, finding_badge
from spikeguard.reporting.sections.verdict_cards import Badge, audited_at, command, verdict_badges
from spikeguard.reporting.standings import Radius, Standing
from spikeguard.storage.digests import UNVERIFIED

__all__ = [
    "Cell",
    "CheckRow",
    "Checks",
    "RadiusTable",
    "checks",
    "score_table",
]

NOT_RUN = "not run"


@dataclass(frozen=True)
class Cell:
    """One cell: a value with small text beside it, or a badge, or a mark for "not run"."""

    value: str
    interval: str = ""
    badge: Badge | None = None
    missing: bool = False


@dataclass(frozen=True)
class RadiusTable:
    """All numbers at one radius.

    Attributes:
        id: Id of its heading.
        where: The threat set, in words.
        head: Column heads after that of the network.
        rows: Label, cells (None where the network was not attacked here) and the command to run.
        full_head: Column heads of the table of all attacks.
        full: Name of the attack, and one cell for each network.
        notes: Notes below the table.
    """

    id: str
    where: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...] | None, str], ...]
    full_head: tuple[str, ...]
    full: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Checks:
    """All checks side by side.

    Attributes:
        rows: The checks that concern at least one network, by question.
        idle: Those that concern none.
    """

    rows: Mapping[str, Sequence[CheckRow]]
    idle: Sequence[CheckRow]


@dataclass(frozen=True)
class CheckRow:
    """One check: code, title, and one badge for each network."""

    code: str
    title: str
    badges: tuple[Badge, ...]


def score_table(place: Radius, networks: Sequence[Network]) -> RadiusTable:
    """Return the tables of one radius."""
    own = place.printed
    shown = [name for name in ("fgsm", "pgd10") if name != own]
    head = ["Clean", *map(formatting.attack, shown)]
    head += [f"{formatting.attack(own)}, own surrogate"] if own else []
    head += ["Worst case", "Zero input gradient", "Audit", "Images"]
    active = any(found.activity is not None for found in place.attacked.values())
    head += ["Spikes an image", "Operations an image"] if active else []
    names = [*shown, own] if own else shown
    rows = []
    for network in networks:
        standing = place.standings[network.label]
        cells = None if standing is None else tuple(_row(standing, names, network, active))
        hint = command("attack", network, *formatting.threat_options(place.norm, place.eps))
        rows.append((network.label, cells, hint))
    full: list[tuple[str, tuple[Cell, ...]]] = []
    for name in ("clean", *place.attacks, "worst_case"):
        cells = tuple(_cell(_scores(standing).get(name)) for standing in place.attacked.values())
        full.append((formatting.attack(name), cells))
    return RadiusTable(
        id=f"{place.norm}-{place.eps:g}".replace(".", "_").replace(" ", "_"),
        where=formatting.threat(place.norm, place.eps),
        head=tuple(head),
        rows=tuple(rows),
        full_head=tuple(place.attacked),
        full=tuple(full),
        notes=tuple(_notes(place)),
    )


def checks(networks: Sequence[Network]) -> Checks:
    """Return each check of the audits as a row, with one badge for each network."""
    found: dict[str, str] = {}
    for network in networks:
        for finding in network.audited.findings if network.audited else ():
            found.setdefault(finding.code, finding.title)
    rows: list[CheckRow] = []
    idle: list[CheckRow] = []
    for code, title in found.items():
        findings = [_finding(network, code) for network in networks]
        concerned = any(f is not None and f.status != "does not apply" for f in findings)
        row = CheckRow(code, title, tuple(map(finding_badge, findings)))
        (rows if concerned else idle).append(row)
    return Checks(by_question(rows), idle)


def _row(standing: Standing, names: Sequence[str], network: Network, active: bool) -> list[Cell]:
    audited = network.audited
    return [
        _cell(standing.clean),
        *(_cell(standing.attacks.get(name)) for name in names),
        _cell(standing.worst_case),
        Cell(formatting.percent(standing.zero_gradient)),
        Cell("", audited_at(audited), verdict_badges(audited)[-1]),
        Cell(formatting.count(standing.clean.n)),
        *(_activity(standing.activity) if active else ()),
    ]


def _activity(found: ActivityCost | None) -> list[Cell]:
    """Return spikes and synaptic operations of an image."""
    if found is None:
        return 2 * [Cell("unknown", missing=True)]
    interval = "" if found.spikes.low is None else _counts(found.spikes.low, found.spikes.high)
    return [
        Cell(formatting.count(round(found.spikes.mean)), interval),
        Cell(formatting.count(round(found.operations))),
    ]


def _counts(low: float, high: float | None) -> str:
    """Write a normal interval of a count, whose lower end may be below 0."""
    return f"[{max(0, low):,.0f}, {high:,.0f}]"


def _notes(place: Radius) -> list[str]:
    notes = []
    images = {
        label: str(standing.activity.images)
        for label, standing in place.attacked.items()
        if standing.activity is not None
    }
    if images:
        notes.append(
            "Spikes, and synaptic operations (ACs and MACs): means of the first "
            f"{shared(images)} clean images."
        )
    for label, standing in place.attacked.items():
        if not standing.swept:
            notes.append(
                f"{label}: no attack with a gradient other than that of its own surrogate was run, "
                "so the worst case covers only that one."
            )
        if any(CASCADE in name for name in standing.attacks):
            notes.append(
                f'{label}: "{CASCADE.strip()}" marks a cascade, in which each accuracy is the one '
                "after this and all cheaper attacks of that suite, not under the attack alone."
            )
        if any(BEFORE in name for name in standing.attacks):
            notes.append(
                f'{label}: "{BEFORE.strip()}" marks the suite "snn" before it was a converging '
                'search, now "snn-cascade": an upper bound that is usually higher.'
            )
        notes += [f'{label}: "{TUNED.strip()}" means with {how}.' for how in standing.tuned]
        if standing.unverified:
            names = ", ".join(standing.unverified)
            notes.append(f"{label}: {UNVERIFIED.strip(' ()')}: {names}.")
        if standing.left_out:
            names = ", ".join(standing.left_out)
            notes.append(f"{label}: not used, because the number of images differs: {names}.")
        for checkpoint in dict.fromkeys(standing.elsewhere.values()):
            names = ", ".join(n for n, each in standing.elsewhere.items() if each == checkpoint)
            notes.append(
                f'{label}: not used, because the checkpoint differs ("{checkpoint}"): {names}.'
            )
        if standing.instead:
            notes.append(
                f'{label}: all results here are of checkpoint "{standing.instead}", not of the one '
                "that the recipe names."
            )
    if len({standing.clean.n for standing in place.attacked.values()}) > 1:
        notes.append("The networks were attacked on different numbers of images.")
    return notes


def _scores(standing: Standing) -> dict[str, Score]:
    return {"clean": standing.clean, **standing.attacks, "worst_case": standing.worst_case}


def _cell(score: Score | None) -> Cell:
    if score is None:
        return Cell(NOT_RUN, missing=True)
    return Cell(formatting.percent(score.accuracy), formatting.interval(score))


def _finding(network: Network, code: str) -> Finding | None:
    findings = network.audited.findings if network.audited else ()
    return next((finding for finding in findings if finding.code == code), None)

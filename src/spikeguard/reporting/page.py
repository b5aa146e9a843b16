"""The content of the report page: verdicts, tables and charts in one dataclass for the template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from spikeguard.analysis.base import SECTIONS
from spikeguard.attacks.threat_names import is_event_norm
from spikeguard.auditing.findings import Finding, Verdict
from spikeguard.config.schema import eps_text
from spikeguard.reporting import formatting
from spikeguard.reporting.charts.accuracy import against_radius, per_attack
from spikeguard.reporting.charts.audit import KINDS, Kind, audited
from spikeguard.reporting.charts.base import Chart, Look, dark_colours, literal, looks
from spikeguard.reporting.charts.membrane import membranes
from spikeguard.reporting.charts.training import curves
from spikeguard.reporting.readers.collect import Network
from spikeguard.reporting.sections.analyses import (
    AnalysisSection,
    analysis_results,
    analysis_sections,
)
from spikeguard.reporting.sections.audit_findings import (
    About,
    Group,
    abouts,
    by_question,
    finding_badge,
    groups,
    tally,
)
from spikeguard.reporting.sections.certificates import certificate_sections
from spikeguard.reporting.sections.facts import Fact, environments, facts
from spikeguard.reporting.sections.published_numbers import Comparison, comparisons
from spikeguard.reporting.sections.repeat_commands import commands_of
from spikeguard.reporting.sections.results import section_results
from spikeguard.reporting.sections.search_curve import search_chart, search_notes, search_rows
from spikeguard.reporting.sections.tables import Checks, RadiusTable, checks, score_table
from spikeguard.reporting.sections.verdict_cards import (
    Badge,
    Card,
    audited_at,
    badge,
    cards,
    command,
    verdict_badges,
    verdict_statements,
)
from spikeguard.reporting.standings import radii, used_results

__all__ = ["Page", "figures_of", "gather"]


@dataclass(frozen=True)
class Missing:
    """Missing curves of one audited network: their titles, the reason, and the command to run."""

    label: str
    titles: str
    why: str
    hint: str


@dataclass(frozen=True)
class Search:
    """A search of one network that ran until it was converged: curve, table and sentences."""

    label: str
    chart: Chart
    rows: Sequence[tuple[str, ...]]
    notes: Sequence[str]


@dataclass(frozen=True)
class Page:
    """The content of the report; ``templates/report.html.j2`` places each part on the page.

    Attributes:
        title: The page's title.
        subtitle: Data, threat sets and images in one line.
        networks: The run folders, in order.
        look: Colour and marker of every network.
        results: One line for each section, by its id.
        cards: One verdict card for each network.
        tables: Numbers at each radius.
        printed: Measured beside published numbers, where a recipe names rows of a paper.
        per_attack: One chart for each radius, by the id of its table.
        searches: Searches that ran until they were converged.
        against_radius: Charts by norm, one for each attacked network.
        membranes: One histogram for each measured network, by label.
        analyses: Certified radii, and sections of analyses with at least one measurement.
        checks: All audits side by side.
        evidence: Curves of the audits, by kind and label; only kinds that some audit stored.
        missing: Curves that an audit did not store, with the reason.
        abouts: Descriptions of the checks, by code.
        curves: Training curves.
        facts: Settings of data, network and training.
        environments: Software and machine of the training.
        commands: Commands that were run, by network, as (label, command line).
        made_by: Command that made this page.
        hints: Commands for stages that were not run, by kind and label.
    """

    title: str
    subtitle: str
    networks: Sequence[Network]
    look: Mapping[str, Look]
    results: Mapping[str, str]
    cards: Sequence[Card]
    tables: Sequence[RadiusTable]
    printed: Sequence[Comparison]
    per_attack: Mapping[str, Chart]
    searches: Sequence[Search]
    against_radius: Mapping[str, Sequence[Chart]]
    membranes: Mapping[str, Chart]
    analyses: Sequence[AnalysisSection]
    checks: Checks
    evidence: Mapping[str, Mapping[str, Chart]]
    missing: Sequence[Missing]
    abouts: Mapping[str, About]
    curves: Sequence[Chart]
    facts: Sequence[Fact]
    environments: Sequence[Fact]
    commands: Mapping[str, Sequence[tuple[str, str]]]
    made_by: str | None
    hints: Mapping[str, Mapping[str, str]]

    def badge(self, status: str | Finding) -> Badge:
        """Return the badge of an audit or of one finding."""
        return finding_badge(status) if isinstance(status, Finding) else badge(status)

    def verdict_badges(self, verdict: Verdict) -> tuple[Badge, ...]:
        """Return the badges of an audit: the printed number, then the bound."""
        return verdict_badges(verdict)

    def verdict_statements(self, verdict: Verdict) -> tuple[str, ...]:
        """Return the sentences of an audit: on the printed number, then on the bound."""
        return verdict_statements(verdict)

    def groups(self, verdict: Verdict) -> list[Group]:
        """Return the findings of an audit in groups, the decisive ones first."""
        return groups(verdict)

    def tally(self, verdict: Verdict) -> str:
        """Count the findings of an audit."""
        return tally(verdict)

    @property
    def analysed(self) -> Mapping[str, AnalysisSection | None]:
        """The sections of analyses by id; None for one without a measurement."""
        found = {part.id: part for part in self.analyses}
        return {id: found.get(id) for id in SECTIONS}

    @property
    def left_out(self) -> list[str]:
        """Sentences on audits and measurements of another checkpoint, which are not used."""
        return [
            f"{network.label}: not used, because the checkpoint is not the one that the recipe "
            f"attacks ({network.checkpoint}): {', '.join(network.left_out)}."
            for network in self.networks
            if network.left_out
        ]

    @property
    def kinds(self) -> list[Kind]:
        """The kinds with at least one stored curve."""
        return [kind for kind in KINDS if kind.id in self.evidence]

    @property
    def subject(self) -> str:
        """Word for the heading: "trained", or "attacked" where no network was trained here."""
        return "trained" if self.curves else "attacked"

    def audited_at(self, network: Network) -> str:
        """Return radius and number of samples of a network's audit as text."""
        return audited_at(network.audited)

    @property
    def charts(self) -> list[Chart]:
        """All charts, in the order of the page."""
        along = [chart for charts in self.against_radius.values() for chart in charts]
        behind = [chart for charts in self.evidence.values() for chart in charts.values()]
        searched = [search.chart for search in self.searches]
        return [
            *self.per_attack.values(),
            *searched,
            *along,
            *self.membranes.values(),
            *(c for part in self.analyses for block in part.blocks for _, c in block.charts),
            *behind,
            *self.curves,
        ]

    @property
    def figures(self) -> str:
        """All figures, each with its title, as one JSON object by id; without "<", for a script."""
        return figures_of(self.charts)

    @property
    def dark(self) -> dict[str, str]:
        """The colour on a dark page for each colour of the charts."""
        return dark_colours()

    @property
    def abouts_by_question(self) -> dict[str, list[About]]:
        """The descriptions of the checks by the question that they ask."""
        return by_question(list(self.abouts.values()))


def figures_of(charts: Sequence[Chart]) -> str:
    """Return figures, each with its title, as one JSON object by id; without "<", for a script."""
    return "{" + ",".join(map(_figure, charts)) + "}"


def _figure(chart: Chart) -> str:
    title = json.dumps(literal(chart.caption or chart.title)).replace("<", "\\u003c")
    return f'{json.dumps(chart.id)}:{{"title":{title},{chart.figure.to_json()[1:]}'


def gather(networks: Sequence[Network], *, title: str | None, made_by: str | None) -> Page:
    """Build the content of the page from run folders that were read."""
    look, places = looks(networks), radii(networks)
    measured = [network for network in networks if network.foreign is None]
    tables = [score_table(place, networks) for place in places]
    analyses = [*certificate_sections(networks, look), *analysis_sections(networks, look)]
    along, evidence, printed = {}, audited(networks, look), comparisons(networks)
    for norm in dict.fromkeys(place.norm for place in places):
        same = [place for place in places if place.norm == norm and place.eps > 0]
        attacked = {label: None for place in same for label in place.attacked}
        labels = [label for label in look if label in attacked]
        along[formatting.norm(norm)] = [against_radius(same, label, look) for label in labels]
    return Page(
        title=title or _title(networks),
        subtitle=_subtitle(networks),
        networks=networks,
        look=look,
        results=section_results(networks, places, printed) | analysis_results(analyses),
        cards=cards(networks, places, look),
        tables=tables,
        printed=printed,
        per_attack={t.id: per_attack(p, look) for t, p in zip(tables, places, strict=True)},
        against_radius={norm: charts for norm, charts in along.items() if charts},
        searches=_searches(networks),
        membranes=membranes(networks, look),
        analyses=analyses,
        checks=checks(networks),
        evidence=evidence,
        missing=_missing(networks, evidence),
        abouts={about.code: about for about in abouts(networks)},
        curves=curves(networks, look),
        facts=facts(networks),
        environments=environments(networks),
        commands={network.label: commands_of(network) for network in networks},
        made_by=made_by,
        hints={
            "attack": {n.label: command("attack", n) for n in networks if not n.attacked},
            "audit": {n.label: command("audit", n) for n in networks if n.audited is None},
            "membrane": {
                n.label: command("audit", n)
                for n in measured
                if n.membrane is None and not n.analyses
            },
        },
    )


def _searches(networks: Sequence[Network]) -> list[Search]:
    found: list[Search] = []
    for network in networks:
        for result in used_results(network):
            if result.search is not None:
                where = formatting.threat(result.norm, result.eps)
                id_, title = (
                    f"search-{len(found)}",
                    f"{result.suite or result.line or result.name}, {where}",
                )
                drawn = search_chart(result.search, id=id_, title=title)
                drawn = replace(drawn, caption=f"{network.label}: {title}")
                rows, notes = search_rows(result.search), search_notes(result.search)
                found.append(Search(network.label, drawn, rows, notes))
    return found


def _title(networks: Sequence[Network]) -> str:
    if len(networks) == 1:
        return f"Robustness of {networks[0].label}"
    return f"Robustness of {len(networks)} networks compared"


def _missing(
    networks: Sequence[Network], evidence: Mapping[str, Mapping[str, Chart]]
) -> list[Missing]:
    """Return why audited networks lack curves: result of the check, or that none was stored."""
    lacking: dict[tuple[str, str, str], list[str]] = {}
    for network in networks:
        for kind in KINDS if network.audited is not None else ():
            if network.label not in evidence.get(kind.id, {}):
                why, hint = _why(network, kind.codes[0])
                lacking.setdefault((network.label, why, hint), []).append(kind.title)
    return [
        Missing(label, "; ".join(titles), why, hint)
        for (label, why, hint), titles in lacking.items()
    ]


def _why(network: Network, code: str) -> tuple[str, str]:
    findings = network.audited.findings if network.audited is not None else ()
    found = next((finding for finding in findings if finding.code == code), None)
    if found is not None and found.status in ("not run", "does not apply"):
        return f"{code} {found.status}: {found.measured}", ""
    return "not stored by this audit; run it again:", command("audit", network)


def _subtitle(networks: Sequence[Network]) -> str:
    sets = dict.fromkeys(network.data for network in networks)
    results = [result for network in networks for result in used_results(network)]
    parts = [f"{len(networks)} network" + "s" * (len(networks) > 1), ", ".join(sets)]
    for norm in dict.fromkeys(result.norm for result in results):
        sizes = sorted({result.eps for result in results if result.norm == norm})
        parts.append(_attacked_at(norm, sizes))
    counts = sorted({result.clean.n for result in results})
    if counts:
        parts.append(f"{' or '.join(map(formatting.count, counts))} test images")
    return " · ".join(parts)


def _attacked_at(norm: str, sizes: Sequence[float]) -> str:
    if is_event_norm(norm):
        return f"attacks: {', '.join(formatting.radius(eps, norm) for eps in sizes)}"
    return f"{formatting.norm(norm)} attacks at ε = {', '.join(map(eps_text, sizes))}"

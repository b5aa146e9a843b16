"""Everything the template writes, gathered: verdicts, tables and charts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spikeguard.config import eps_text
from spikeguard.reporting import words
from spikeguard.reporting.charts import (
    Chart,
    Look,
    against_radius,
    curves,
    looks,
    membranes,
    per_attack,
)
from spikeguard.reporting.charts.training import DASHES, terms
from spikeguard.reporting.collect import Attacked, Network
from spikeguard.reporting.printed import Comparison, comparisons
from spikeguard.reporting.standings import radii
from spikeguard.reporting.tables import (
    Checks,
    Fact,
    RadiusTable,
    checks,
    environments,
    facts,
    score_table,
)
from spikeguard.reporting.verdict import Badge, Card, audited_at, badge, cards, command

__all__ = ["Page", "gather"]


@dataclass(frozen=True)
class Page:
    """What the template writes; see it for where.

    Attributes:
        title: The page's title.
        subtitle: Data, threat sets and images in one line.
        networks: The run folders.
        look: Colour and marker of every network.
        cards: Verdict of every network.
        tables: Numbers at every radius.
        printed: Ours beside published numbers, where a recipe names them.
        per_attack: A chart for every radius, by the id of its table.
        against_radius: Charts by norm: one for every attacked network.
        membranes: A chart for every measured network, by label.
        checks: All audits side by side.
        curves: Training curves.
        terms: Names and line styles in the chart of loss terms.
        facts: What was trained.
        environments: What it was trained on.
        commands: What was run, by network; and how this page was made.
        hints: Commands for what was not run, by kind and label.
    """

    title: str
    subtitle: str
    networks: Sequence[Network]
    look: Mapping[str, Look]
    cards: Sequence[Card]
    tables: Sequence[RadiusTable]
    printed: Sequence[Comparison]
    per_attack: Mapping[str, Chart]
    against_radius: Mapping[str, Sequence[Chart]]
    membranes: Mapping[str, Chart]
    checks: Checks
    curves: Sequence[Chart]
    terms: Mapping[str, str]
    facts: Sequence[Fact]
    environments: Sequence[Fact]
    commands: Mapping[str, Sequence[tuple[str, str]]]
    made_by: str | None
    hints: Mapping[str, Mapping[str, str]]

    def badge(self, status: str) -> Badge:
        """Return the badge of a check's status."""
        return badge(status)

    def audited_at(self, network: Network) -> str:
        """Say where a network's audit was made."""
        return audited_at(network.audited)

    @property
    def charts(self) -> list[Chart]:
        """All charts, in the page's order."""
        along = [chart for charts in self.against_radius.values() for chart in charts]
        return [*self.per_attack.values(), *along, *self.membranes.values(), *self.curves]

    @property
    def figures(self) -> str:
        """All figures as one JSON object by id; it holds no "<" and can stand in a script."""
        return "{" + ",".join(f"{json.dumps(c.id)}:{c.figure.to_json()}" for c in self.charts) + "}"


def gather(networks: Sequence[Network], *, title: str | None, made_by: str | None) -> Page:
    """Gather a page about run folders."""
    look, places = looks(networks), radii(networks)
    tables = [score_table(place, networks) for place in places]
    along = {}
    for norm in dict.fromkeys(place.norm for place in places):
        same = [place for place in places if place.norm == norm and place.eps > 0]
        attacked = {label: None for place in same for label in place.attacked}
        labels = [label for label in look if label in attacked]
        along[words.norm(norm)] = [against_radius(same, label, look) for label in labels]
    return Page(
        title=title or _title(networks),
        subtitle=_subtitle(networks),
        networks=networks,
        look=look,
        cards=cards(networks, places, look),
        tables=tables,
        printed=comparisons(networks),
        per_attack={t.id: per_attack(p, look) for t, p in zip(tables, places, strict=True)},
        against_radius={norm: charts for norm, charts in along.items() if charts},
        membranes=membranes(networks, look),
        checks=checks(networks),
        curves=curves(networks, look),
        terms={term: DASHES[n % len(DASHES)] for n, term in enumerate(terms(networks))},
        facts=facts(networks),
        environments=environments(networks),
        commands={network.label: _commands(network) for network in networks},
        made_by=made_by,
        hints={
            "attack": {n.label: command("attack", n) for n in networks if not n.attacked},
            "audit": {n.label: command("audit", n) for n in networks if n.audited is None},
            "membrane": {n.label: command("audit", n) for n in networks if n.membrane is None},
        },
    )


def _title(networks: Sequence[Network]) -> str:
    if len(networks) == 1:
        return f"Robustness of {networks[0].label}"
    return f"Robustness of {len(networks)} networks compared"


def _subtitle(networks: Sequence[Network]) -> str:
    sets = dict.fromkeys(network.recipe.data.name for network in networks)
    results = [result for network in networks for result in network.attacked]
    parts = [f"{len(networks)} network" + "s" * (len(networks) > 1), ", ".join(sets)]
    for norm in dict.fromkeys(result.norm for result in results):
        sizes = sorted({result.eps for result in results if result.norm == norm})
        parts.append(f"{words.norm(norm)} attacks at ε = {', '.join(map(eps_text, sizes))}")
    counts = sorted({result.clean.n for result in results})
    if counts:
        parts.append(f"{' or '.join(map(words.count, counts))} test images")
    return " · ".join(parts)


def _commands(network: Network) -> list[tuple[str, str]]:
    """Return what was run on a network: training as recorded, the rest as it can be repeated."""
    recorded = network.environment.get("command")
    commands = [("trained by", str(recorded))] if recorded else []
    commands += [
        (f"attacks {result.name}", _attack(network, result)) for result in network.attacked
    ]
    if network.audited is not None:
        commands.append(("audit", command("audit", network)))
    return commands


def _attack(network: Network, result: Attacked) -> str:
    options = ["--suite", result.suite] if result.suite else []
    options += ["--norm", result.norm, "--eps", eps_text(result.eps)]
    options += ["--limit", str(result.limit)] if result.limit is not None else []
    options += ["--eot", str(result.eot)] if result.eot > 1 else []
    return command("attack", network, *options)

"""Sections of the report that show analyses: one for each subject, in the same order as run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spikeguard.analysis.base import SECTIONS
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Table
from spikeguard.analysis.registry import ANALYSES
from spikeguard.reporting.charts.analyses import drawn
from spikeguard.reporting.charts.base import Chart, Look
from spikeguard.reporting.readers.collect import Network

__all__ = ["AnalysisBlock", "AnalysisSection", "analysis_results", "analysis_sections"]


@dataclass(frozen=True)
class AnalysisBlock:
    """One analysis of one or several networks.

    Attributes:
        name: Its file name without suffix, such as "flips-pgd7-linf-0.1".
        analysis: Its name in ``ANALYSES``.
        title: Heading.
        about: What is measured and how to read it.
        source: Paper, figure and equations.
        result: The result in one line.
        table: The numbers.
        charts: The charts, each with its plot.
        settings: Settings and number of images, in one line.
    """

    name: str
    analysis: str
    title: str
    about: str
    source: str
    result: str
    table: Table
    charts: Sequence[tuple[Plot, Chart]]
    settings: str


@dataclass(frozen=True)
class AnalysisSection:
    """One section: its id, title, the analyses in it, and the result while it is folded."""

    id: str
    title: str
    blocks: Sequence[AnalysisBlock]

    @property
    def result(self) -> str:
        """The result of the first analysis."""
        return self.blocks[0].result

    def shows(self, analysis: str) -> bool:
        """Whether an analysis was measured, with any settings."""
        return any(block.analysis == analysis for block in self.blocks)


def analysis_sections(
    networks: Sequence[Network], look: Mapping[str, Look]
) -> list[AnalysisSection]:
    """Return the sections with at least one measurement."""
    names = dict.fromkeys(name for network in networks for name in network.analyses)
    order = {name: place for place, name in enumerate(ANALYSES)}
    blocks: dict[str, list[AnalysisBlock]] = {}
    analysis_of = {name: m.analysis for n in networks for name, m in n.analyses.items()}
    for name in sorted(names, key=lambda each: (order[analysis_of[each]], each)):
        found = {n.label: n.analyses[name] for n in networks if name in n.analyses}
        kind = ANALYSES[analysis_of[name]]
        blocks.setdefault(kind.section, []).append(_block(name, found, look))  # type: ignore[attr-defined]
    return [
        AnalysisSection(id, title, blocks[id]) for id, title in SECTIONS.items() if id in blocks
    ]


def analysis_results(parts: Sequence[AnalysisSection]) -> dict[str, str]:
    """Return the result of each section in one line, by the id of its part of the page.

    Potentials are shown in the section of the membrane histogram, id "membrane".
    """
    return {"membrane" if it.id == "membranes" else it.id: it.result for it in parts}


def _block(name: str, found: Mapping[str, Measurement], look: Mapping[str, Look]) -> AnalysisBlock:
    kind = ANALYSES[next(iter(found.values())).analysis]
    title, plots = kind.title, kind.plots(found)  # type: ignore[attr-defined]
    several = len(look) > 1
    charts = []
    for plot in plots:
        owner = f"{plot.network}: " if plot.network and several else ""
        caption = f"{owner}{plot.title}"
        id = "analysis-" + "".join(c if c.isalnum() else "-" for c in f"{name}-{plot.name}")
        charts.append((plot, drawn(plot, look, id=id, caption=caption)))
    return AnalysisBlock(
        name=name,
        analysis=kind.name,  # type: ignore[attr-defined]
        title=title,
        about=kind.about,  # type: ignore[attr-defined]
        source=kind.source,  # type: ignore[attr-defined]
        result=kind.result(found),  # type: ignore[attr-defined]
        table=kind.table(found),  # type: ignore[attr-defined]
        charts=charts,
        settings=_settings(found),
    )


def _settings(found: Mapping[str, Measurement]) -> str:
    """Return the settings in one line; those of each network where they differ."""
    texts = {label: f"{_words(m.settings)}; {m.samples} images" for label, m in found.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{label}: {text}" for label, text in texts.items())


def _words(settings: Mapping[str, object]) -> str:
    return ", ".join(
        f"{key} {_text(value)}"
        for key, value in settings.items()
        if key != "kind" and value is not None
    )


def _text(value: object) -> str:
    """Return a setting as text; a part with settings of its own as "kind(settings)"."""
    if isinstance(value, Mapping):
        inside = _words(value)
        return f"{value.get('kind', '')}({inside})" if inside else str(value.get("kind", ""))
    return value if isinstance(value, str) else json.dumps(value)

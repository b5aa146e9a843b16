"""Sections of the report that show analyses: one for each subject, in the same order as run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
    """Return the settings in one line, and those that differ for each network."""
    words = {label: {**_parts(m.settings), "images": str(m.samples)} for label, m in found.items()}
    first = next(iter(words.values()))
    shared = {key: text for key, text in first.items() if _all_have(words.values(), key, text)}
    lines = [", ".join(f"{key} {text}" for key, text in shared.items())]
    for label, own in words.items():
        differing = [f"{key} {text}" for key, text in own.items() if key not in shared]
        lines += [f"{label}: {', '.join(differing)}"] if differing else []
    return "; ".join(filter(None, lines))


def _all_have(words: Iterable[Mapping[str, str]], key: str, text: str) -> bool:
    return all(each.get(key) == text for each in words)


def _parts(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as text by name; those of the attack by name too."""
    found: dict[str, str] = {}
    for key, value in settings.items():
        if key == "attack" and isinstance(value, Mapping):
            inside = {k: v for k, v in value.items() if k != "kind"}
            found |= {key: str(value.get("kind", "")), **_parts(inside)}
        elif key != "kind" and value is not None:
            found[key.replace("_", " ")] = _text(value)
    return found


def _text(value: object) -> str:
    """Return a setting as text; a part with settings of its own as "kind(settings)"."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} {text}" for key, text in _parts(value).items())
        return f"{value.get('kind', '')}({inside})" if inside else str(value.get("kind", ""))
    if isinstance(value, float):
        return f"{value:.4g}"
    return value.replace("_", " ") if isinstance(value, str) else json.dumps(value)

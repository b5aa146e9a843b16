"""The tables of the report as files: CSV for computation, LaTeX (booktabs) for papers."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikeguard.reporting import formatting
from spikeguard.reporting.page import Page
from spikeguard.reporting.sections.facts import Fact
from spikeguard.reporting.sections.tables import Cell
from spikeguard.storage.atomic_files import write_text

__all__ = ["FlatTable", "flat_tables", "latex", "write_tables"]

_NUMBER = r"(-?\d[\d,]*(?:\.\d+)?)"
_INTERVAL = re.compile(rf"\[\s*{_NUMBER}, {_NUMBER}\]")
_MEASURED = re.compile(rf"{_NUMBER}( %)?")
_PERCENT = re.compile(rf"{_NUMBER} %")
_COUNT = re.compile(r"\d{1,3}(,\d{3})+")
_MATH = {
    "∞": r"\infty",
    "×": r"\times",
    "±": r"\pm",
    "·": r"\cdot",
    "−": "-",
    "≥": r"\geq",
    "≤": r"\leq",
    "≠": r"\neq",
    "→": r"\to",
    "∈": r"\in",
    "✓": r"\surd",
    "✗": r"\times",
    "²": "^2",
    "₁": "_1",
    "₂": "_2",
    "α": r"\alpha",
    "β": r"\beta",
    "γ": r"\gamma",
    "δ": r"\delta",
    "Δ": r"\Delta",
    "ε": r"\varepsilon",
    "λ": r"\lambda",
    "μ": r"\mu",
    "µ": r"\mu",
    "ρ": r"\rho",
    "σ": r"\sigma",
    "τ": r"\tau",
    "θ": r"\theta",
}
_ESCAPED = {
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
    **{symbol: f"${command}$" for symbol, command in _MATH.items()},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "\u00a0": "~",
    "–": "--",
    "—": "---",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
}


@dataclass(frozen=True)
class FlatTable:
    """One table without markup.

    Attributes:
        name: Name of its files, without a suffix.
        title: Caption.
        head: Column heads.
        rows: Cells; a short row is filled up with empty cells.
    """

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def write_tables(page: Page, folder: str | Path) -> list[Path]:
    """Write every table of a page as ``NAME.csv`` and ``NAME.tex``, each atomically.

    Args:
        page: Content of the report.
        folder: Folder of the files, created if it is missing; files of equal names are replaced.

    Returns:
        The files.
    """
    written = []
    for table in flat_tables(page):
        for suffix, text in ((".csv", _csv(table)), (".tex", latex(table))):
            written.append(Path(folder) / f"{table.name}{suffix}")
            write_text(written[-1], text)
    return written


def flat_tables(page: Page) -> Iterator[FlatTable]:
    """Return every table of a page that has rows, in its order."""
    return (table for table in _all(page) if table.rows)


def _all(page: Page) -> Iterator[FlatTable]:
    for table in page.tables:
        title = f"Accuracy at {table.where}"
        rows = [(Cell(label), *(cells or (Cell("not run"),))) for label, cells, _ in table.rows]
        head = ("Network", *table.head)
        yield FlatTable(f"accuracy-{table.id}", title, head, tuple(rows))
        full = [(Cell(name), *cells) for name, cells in table.full]
        head = ("Attack", *table.full_head)
        yield FlatTable(f"attacks-{table.id}", f"All attacks at {table.where}", head, tuple(full))
    for place, search in enumerate(page.searches, start=1):
        title = f"{search.label}: search until converged, {search.chart.title}"
        plain = [(name, *numbers) for name, _, *numbers in search.rows]  # without the colour
        yield _text(f"search-{place}", title, ("Search", "Found", "Gradients", "CPU s"), plain)
    for place, it in enumerate(page.printed, start=1):
        pairs = [
            (
                Cell(pair.attack),
                Cell(pair.theirs),
                Cell("not run")
                if pair.ours is None
                else Cell(formatting.percent(pair.ours.accuracy), formatting.interval(pair.ours)),
                Cell(pair.note),
            )
            for pair in it.pairs
        ]
        head = ("Attack", "Published, %", "Measured", "Note")
        yield FlatTable(f"published-{place}", f"{it.label} beside {it.source}", head, tuple(pairs))
    yield _membranes(page)
    for part in page.analyses:
        for block in part.blocks:
            yield _text(block.name, block.title, block.table.head, block.table.rows)
    for place, network in enumerate(page.networks, start=1):
        found = network.audited.findings if network.audited is not None else ()
        lines = [(f.code, f.title, f.status, f.measured, f.threshold) for f in found]
        head = ("Check", "What should hold", "Result", "Measured", "Passes when")
        yield _text(f"audit-{place}", f"Audit of {network.label}", head, lines)
    labels = tuple(page.look)
    shown = [row for rows in page.checks.rows.values() for row in rows]
    matrix = [
        (row.code, row.title, *(badge.word for badge in row.badges))
        for row in (*shown, *page.checks.idle)
    ]
    yield _text("checks", "All checks", ("Check", "What should hold", *labels), matrix)
    yield _facts("settings", "Settings", labels, page.facts)
    yield _facts("environment", "Environment", labels, page.environments)


def _membranes(page: Page) -> FlatTable:
    head = (
        "Network",
        "Layer",
        "Near the threshold",
        "Surrogate > 0",
        "Threshold crossings",
        "Potentials",
    )
    rows = []
    for network in page.networks:
        if network.membrane is not None:
            layers = {**network.membrane.layers, "all layers": network.membrane.pooled}
            for name, row in layers.items():
                shares = (row.near_threshold, row.surrogate_active, row.firing_rate)
                numbers = (*map(formatting.percent, shares), formatting.count(row.potentials))
                rows.append((network.label, name, *numbers))
    return _text("membranes", "Membrane potentials", head, rows)


def _facts(name: str, title: str, labels: tuple[str, ...], facts: Sequence[Fact]) -> FlatTable:
    return _text(name, title, ("Setting", *labels), [(fact.name, *fact.values) for fact in facts])


def _text(name: str, title: str, head: tuple[str, ...], rows: Sequence[Sequence[str]]) -> FlatTable:
    return FlatTable(name, title, head, tuple(tuple(map(Cell, row)) for row in rows))


def _csv(table: FlatTable) -> str:
    """Return a table as CSV.

    Numbers have no separators of thousands. A share is a number in per cent, named so in the head.
    An interval is two columns of its own.
    """
    columns = [_column(table, place) for place in range(len(table.head))]
    lines = [[name for column in columns for name, _ in column]]
    lines += [
        [cells[row] for column in columns for _, cells in column] for row in range(len(table.rows))
    ]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _column(table: FlatTable, place: int) -> list[tuple[str, list[str]]]:
    """Return one column as one or three columns of text or numbers, each with its head."""
    head = table.head[place]
    cells = [row[place] if place < len(row) else Cell("") for row in table.rows]
    measured = [cell for cell in cells if _INTERVAL.fullmatch(cell.interval)]
    if measured:
        unit = ", %" if all(_PERCENT.fullmatch(cell.value) for cell in measured) else ""
        names = (f"{head}{unit}", f"{head} low{unit}", f"{head} high{unit}")
        return list(zip(names, map(list, zip(*map(_numbers, cells), strict=True)), strict=True))
    shares = [_PERCENT.fullmatch(cell.value) for cell in cells if cell.value]
    if shares and all(shares):
        return [(f"{head}, %", [cell.value.removesuffix(" %") for cell in cells])]
    return [(head, [_number(_word(cell)) for cell in cells])]


def _number(text: str) -> str:
    """Return a count without separators of thousands; other text as it is."""
    return text.replace(",", "") if _COUNT.fullmatch(text) else text


def _numbers(cell: Cell) -> tuple[str, str, str]:
    """Return a number, lower and upper end; empty where it was not measured."""
    value, ends = _MEASURED.fullmatch(cell.value), _INTERVAL.fullmatch(cell.interval)
    if value is None:
        return ("", "", "")
    low, high = ("", "") if ends is None else ends.groups()
    one, first, last = (number.replace(",", "") for number in (value[1], low, high))
    return one, first, last


def _word(cell: Cell) -> str:
    """Return a cell as text; a badge as its word."""
    badge = "" if cell.badge is None else cell.badge.word
    return " ".join(filter(None, (cell.value, badge, cell.interval)))


def latex(table: FlatTable) -> str:
    """Return a table as LaTeX with a caption; it needs the package booktabs.

    An accuracy is "61.4 % [57.0, 65.6]" with its 95 % interval.
    """
    columns = "".join(
        "r" if any(_PERCENT.fullmatch(r[c].value) for r in table.rows if c < len(r)) else "l"
        for c in range(len(table.head))
    )
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(table.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(map(_escaped, table.head)) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = [*row, *[Cell("")] * (len(table.head) - len(row))]
        lines.append(" & ".join(_escaped(_word(cell)) for cell in cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _escaped(text: str) -> str:
    """Return text for LaTeX: special characters and symbols as commands, one line."""
    return "".join(_ESCAPED.get(mark, mark) for mark in text.replace("\n", " ")).replace(
        r"L$\infty$", r"$L_\infty$"
    )

"""report(): fill the HTML template with the content of run folders and write one page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from spikeguard.reporting import formatting
from spikeguard.reporting.page import Page, gather
from spikeguard.reporting.readers.collect import collect
from spikeguard.reporting.table_files import write_tables
from spikeguard.storage.atomic_files import write_text

__all__ = ["environment", "packed_plotly", "report"]


def report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    command: str | None = None,
    tables: str | Path | None = None,
) -> Path:
    """Write one HTML page about one or several run folders; nothing is computed.

    Where attacks, audit or membrane histogram are missing, the page prints the command that makes
    them. The same folders give the same bytes.

    Args:
        runs: Folders of finished trainings, or of foreign models that were attacked or audited.
        out: The page to write or replace, atomically.
        title: Heading of the page. Default: made from the names of the networks.
        command: Command line that made the page; shown on it.
        tables: Folder for every table of the page as CSV and LaTeX; None writes none.

    Returns:
        The page's path.

    Raises:
        ValueError: If a folder is no finished run, or a file in it is missing or damaged: one line
            that names the file. An existing page is left unchanged.

    Example:
        >>> report(["runs/vanilla", "runs/tgo"], "runs/report.html")  # doctest: +SKIP
        PosixPath('runs/report.html')
    """
    page = gather(collect(runs), title=title, made_by=command)
    out = Path(out)
    write_text(out, _render(page))
    if tables is not None:
        write_tables(page, tables)
    return out


def _render(page: Page) -> str:
    """Fill the template; all text is escaped except the script and the data of the charts."""
    made = environment()
    made.globals["page"] = page
    figures = Markup(page.figures)  # plotly writes "<", ">" and "/" in JSON as \u escapes
    return made.get_template("report.html.j2").render(figures=figures, plotly_gz=packed_plotly())


def environment() -> Environment:
    """Return the templates of the pages; all text is escaped."""
    found = Environment(
        loader=PackageLoader("spikeguard.reporting", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["formatting"] = formatting
    return found


@cache
def packed_plotly() -> str:
    """Return plotly.js as gzip in base64: 2 MB instead of 4.8."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()

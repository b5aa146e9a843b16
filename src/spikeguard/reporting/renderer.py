"""TODO."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from spikeguard.reporting import formatting as words
from spikeguard.reporting.page import Page, gather
from spikeguard.reporting.readers.collect import collect
from spikeguard.storage.atomic_files import write_text

__all__ = ["report"]


def report(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    title: str | None = None,
    command: str | None = None,
) -> Path:
    """Write a page about one run or several, from what their folders hold; nothing is computed.

    What was not run (no attacks, no audit, no membrane histogram) is said with the command that
    runs it. The same folders give the same bytes.

    Args:
        runs: Folders of finished trainings, or of models of the user's own that were attacked.
        out: The page to write or replace, atomically.
        title: Heading; what is compared, when left out.
        command: The command line that made the page, to be shown on it.

    Returns:
        The page's path.

    Raises:
        ValueError: If a folder is no finished run, or a file in it is missing or damaged: one line
            that names the file. The old page stands.

    Example:
        >>> report(["runs/vanilla", "runs/tgo"], "runs/report.html")  # doctest: +SKIP
        PosixPath('runs/report.html')
    """
    page = gather(collect(runs), title=title, made_by=command)
    out = Path(out)
    write_text(out, _render(page))
    return out


def _render(page: Page) -> str:
    """Fill the template; everything but the charts' script and data is escaped."""
    source = (files("spikeguard.reporting") / "report.html.j2").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = Markup(page.figures)  # plotly writes "<", ">" and "/" in JSON as \u escapes
    return environment.from_string(source).render(
        page=page, words=words, figures=figures, plotly_js=Markup(get_plotlyjs())
    )

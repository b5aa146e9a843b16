"""``spikeguard report``: write the HTML page about one run or several."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.cli.console import say, table
from spikeguard.cli.json_output import AsJson, write_result

if TYPE_CHECKING:
    from spikeguard.reporting.sections.published_numbers import Pair

__all__ = ["report"]


def report(
    *runs: Path, out: Path | None = None, tables: Path | None = None, json: AsJson = False
) -> int:
    """Write one self-contained HTML page about one run or several, from the files in their folders.

    Where a recipe names rows of published tables, published and measured numbers stand side by side
    if they have the same protocol; for a number that does not, the command is given.

    Args:
        runs: Run folders, or folders of foreign models that were attacked or audited; several are
            compared.
        out: The page; report.html in the run folder, or in the folder all runs share.
        tables: Folder for every table of the page as CSV and LaTeX.
        json: Print paths and comparisons as JSON and nothing else on standard output.
    """
    from spikeguard.config.errors import ConfigError
    from spikeguard.reporting.readers.collect import collect
    from spikeguard.reporting.renderer import report as write_report
    from spikeguard.reporting.sections.published_numbers import comparisons
    from spikeguard.runs.run import require_finished
    from spikeguard.storage.run_folder import MODEL, REPORT

    if not runs:
        raise ConfigError("name at least one run folder, for example runs/demo/tgo.")
    for run in runs:
        if not (run / MODEL).is_file():
            require_finished(run)
    places = [run.resolve() for run in runs]
    shared = Path(os.path.commonpath(places)) if len(runs) > 1 else runs[0]
    page = shared / REPORT if out is None else out
    command = ["spikeguard", "report", *map(str, runs)]
    command += [] if out is None else ["--out", str(out)]
    command += [] if tables is None else ["--tables", str(tables)]
    if tables is not None and tables.exists() and not tables.is_dir():
        raise ConfigError(f"--tables: {tables} is a file; name a folder.")
    written = write_report(runs, page, command=shlex.join(command), tables=tables)
    compared = comparisons(collect(runs))
    for found in compared:
        say(f"{found.label}, beside {found.source}")
        rows = [(p.attack, p.theirs, _ours(p), p.note) for p in found.pairs]
        table(("attack", "printed, %", "ours", "about the numbers"), rows)
        for line in found.notes:
            say(line)
        for pair in found.pairs:
            if pair.command:
                say(f"{pair.attack} not run: {pair.command}")
        say()
    say(f"report in {written}")
    if tables is not None:
        say(f"tables in {tables}")
    if json:
        write_result("report", {"report": written, "tables": tables, "published": compared})
    return 0


def _ours(pair: Pair) -> str:
    """Write the measured number, or whether there is one to measure."""
    if pair.ours is not None:
        return str(pair.ours).strip()
    return "not run" if pair.command else "no match"

"""``spikeguard demo``: train, attack and audit four small networks."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spikeguard.cli.console import progress_board, say, table

__all__ = ["demo"]


def demo(
    *,
    out: Path | None = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    workers: int = 2,
    open: bool = False,
) -> int:
    """Train, attack and audit four small networks on embedded digits; write a report.

    Needs no download. Finished stages are stored: after an interruption the same command continues.

    Args:
        out: Folder for the four runs and the report; runs/demo, with --quick runs/demo-quick.
        quick: A version of one minute with few images and epochs; its numbers mean nothing.
        workers: Networks at a time, each in a process of one thread.
        open: Open the report in the browser.
    """
    from spikeguard.runs.demo import run_demo

    path = Path("runs") / ("demo-quick" if quick else "demo") if out is None else out
    with progress_board() as update:
        result = run_demo(path, quick=quick, workers=workers, progress=update)
    head = ("network", "eps", "clean", "FGSM", "PGD, own surrogate", "worst case", "audit")
    table(
        head,
        [
            (
                row.name,
                f"{found.threat['eps']:g}",
                f"{found.clean.accuracy:.1%}",
                f"{found.attacks['fgsm'].accuracy:.1%}",
                str(
                    next(
                        score for name, score in reversed(found.attacks.items()) if "/" not in name
                    )
                ),
                str(found.worst_case),
                row.verdict,
            )
            for row in result.rows
            for found in row.results
        ],
    )
    say()
    say(f"report in {result.report}")
    if open:
        webbrowser.open(result.report.resolve().as_uri())
    return 0

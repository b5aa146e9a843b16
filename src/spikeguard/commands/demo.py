"""``spikeguard demo``."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spikeguard.commands.console import progress, say, table

__all__ = ["demo"]


def demo(
    *,
    out: Path | None = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    open: bool = False,
) -> int:
    """Train, attack and audit four small networks on embedded digits; write a report.

    Needs no download. Whatever is already done is kept: after an interruption the same command goes
    on.

    Args:
        out: Folder for the four runs and the report; runs/demo, with --quick runs/demo-quick.
        quick: A minute's version with few images and epochs; its numbers mean nothing.
        open: Open the report in the browser.
    """
    from spikeguard.config import eps_text
    from spikeguard.demo import run_demo

    path = Path("runs") / ("demo-quick" if quick else "demo") if out is None else out
    result = run_demo(path, quick=quick, progress=progress)
    head = ["network", "clean"]
    head += [f"worst case at {eps_text(eps)}" for eps in result.eps]
    head += ["near threshold", "zero gradient", "audit"]
    table(
        head,
        [
            (
                row.name,
                f"{row.clean:.1%}",
                *(
                    f"{score.accuracy:.1%} [{score.low:.1%}, {score.high:.1%}]"
                    for score in row.worst
                ),
                f"{row.near_threshold:.1%}",
                f"{row.zero_gradient:.1%}",
                row.verdict,
            )
            for row in result.rows
        ],
    )
    say()
    say(f"report in {result.report}")
    if open:
        webbrowser.open(result.report.resolve().as_uri())
    return 0

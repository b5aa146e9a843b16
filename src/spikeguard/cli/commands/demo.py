"""``spikeguard demo``: train, attack and audit four small networks."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from spikeguard.cli.console import progress_board, say, table
from spikeguard.cli.json_output import AsJson, write_result

if TYPE_CHECKING:
    from spikeguard.runs.demo import DemoRow

__all__ = ["demo"]


def demo(
    *,
    out: Path | None = None,
    quick: Annotated[bool, Parameter(negative="")] = False,
    workers: int = 2,
    open: bool = False,
    json: AsJson = False,
) -> int:
    """Train, attack and audit four small networks on embedded digits; write a report.

    Needs no download. Finished stages are stored: after an interruption the same command continues.

    Args:
        out: Folder for the four runs and the report; runs/demo, with --quick runs/demo-quick.
        quick: A version of one minute with few images and epochs; its numbers mean nothing.
        workers: Networks at a time, each in a process of one thread.
        open: Open the report in the browser.
        json: Print the results as JSON and nothing else on standard output.
    """
    from spikeguard.runs.demo import run_demo

    path = Path("runs") / ("demo-quick" if quick else "demo") if out is None else out
    with progress_board() as update:
        result = run_demo(path, quick=quick, workers=workers, progress=update)
    head = (
        "network",
        "eps",
        "clean",
        "printed: PGD-40",
        "bound",
        "printed is too high by",
        "audit",
    )
    table(head, [_cells(row, eps) for row in result.rows for eps in row.radii])
    say()
    say(f"report in {result.report}")
    if json:
        networks = [
            {
                "name": row.name,
                "audit": row.verdict,
                "near_threshold": row.near_threshold,
                "results": [each.to_dict() for each in row.results],
            }
            for row in result.rows
        ]
        write_result("demo", {"report": result.report, "networks": networks})
    if open:
        webbrowser.open(result.report.resolve().as_uri())
    return 0


def _cells(row: DemoRow, eps: float) -> tuple[str, ...]:
    """Return the cells of one network at one radius: both numbers and their gap in points.

    The bound is the worst case of the suite that leaves least.
    """
    from spikeguard.evaluation.estimates import Estimate

    found = [each for each in row.results if each.threat["eps"] == eps]
    first = found[0]
    printed = next(name for name in reversed(first.attacks) if "/" not in name)
    worst = min(found, key=lambda each: each.worst_case.accuracy)
    gap = Estimate.paired(first.outcomes[printed], worst.outcomes["worst_case"])
    return (
        row.name,
        f"{eps:g}",
        f"{first.clean.accuracy:.1%}",
        str(first.attacks[printed]),
        str(worst.worst_case),
        f"{100 * gap.value:.1f} [{100 * gap.low:.1f}, {100 * gap.high:.1f}]",
        f"bound: {row.verdict}" if eps == max(row.radii) else "-",
    )

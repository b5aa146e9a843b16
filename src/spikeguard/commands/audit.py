"""``spikeguard audit``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from spikeguard.commands.console import numbers, progress, say

__all__ = ["audit"]


def audit(
    run: Path,
    /,
    *,
    eps: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    limit: int | None = None,
    strict: Annotated[bool, Parameter(negative="")] = False,
    data_root: Path | None = None,
) -> int:
    """Check whether a run's robustness can be believed: hidden gradients, weak attacks, luck.

    Also measures where the membrane potentials lie, for the report.

    Args:
        run: Run folder.
        eps: Radius of the threat set, such as 8/255; the largest of the run's recipe when left out.
        limit: Number of test images.
        strict: Exit with code 1 when the verdict is "unreliable".
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.runs import AUDIT, Run

    radius = numbers("--eps", [eps])[0] if eps else None
    loaded = Run.load(run, data_root=data_root)
    with progress("audit") as update:
        verdict = loaded.audit(eps=radius, limit=limit, progress=update)
        loaded.membrane()
    say(verdict.table())
    say()
    say(verdict.sentence)
    say(f"verdict in {run / AUDIT}")
    return 1 if strict and verdict.status == "unreliable" else 0

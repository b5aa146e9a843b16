"""SpikeGuard's own warnings as single lines on standard error, without a place in the code."""

from __future__ import annotations

import sys
import warnings
from typing import Any

__all__ = ["show_in_one_line"]


def show_in_one_line(prefix: str) -> None:
    """Show warnings of SpikeGuard's own classes as "prefix: message" from now on.

    ``warnings.catch_warnings`` around the call ends it.
    """
    default = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
        if category.__module__.startswith("spikeguard."):
            print(f"{prefix}: {message}", file=sys.stderr)
        else:
            default(message, category, *place)

    warnings.showwarning = show  # type: ignore[assignment]

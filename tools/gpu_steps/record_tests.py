"""Plugin of pytest that appends the outcome of every test to the file ``$GPU_CHECK_TESTS``."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """Write a line when a test has passed, failed or been skipped; workers leave it to the main."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when != "call" and report.outcome == "passed":
        return
    line = {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration}
    if report.outcome != "passed":
        line["why"] = str(report.longrepr)[-2000:]
    with Path(os.environ["GPU_CHECK_TESTS"]).open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")

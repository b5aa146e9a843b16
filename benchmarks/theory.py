"""The papers' theorems put to the test: prints every figure of docs/theory.md.

    spikeguard demo                          # trains the four networks in runs/demo
    python benchmarks/theory.py              # closed forms, then these networks; about a minute
    python benchmarks/theory.py --no-networks

All seeds are 0. Tables are in Markdown, as the page has them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from theory_closed_forms import Table, closed_forms
from theory_networks import NETWORKS, on_networks


def show(table: Table) -> str:
    """Return a table in Markdown below its title; a table without columns is its title."""
    lines = [table.title]
    if table.head:
        lines += ["", *(f"| {' | '.join(row)} |" for row in table.lines())]
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    formatter = argparse.RawTextHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/demo"), help="runs of the demo")
    parser.add_argument("--limit", type=int, default=500, help="first test images; all are 500")
    parser.add_argument("--no-networks", action="store_true", help="closed forms only")
    args = parser.parse_args()
    missing = [name for name in NETWORKS if not (args.runs / name).is_dir()]
    if missing and not args.no_networks:
        parser.error(
            f"{args.runs} has no run {missing[0]}; run `spikeguard demo` or use --no-networks"
        )
    for table in closed_forms():
        print(show(table), end="\n\n", flush=True)
    if not args.no_networks:
        for table in on_networks(args.runs, args.limit):
            print(show(table), end="\n\n", flush=True)


if __name__ == "__main__":
    main()

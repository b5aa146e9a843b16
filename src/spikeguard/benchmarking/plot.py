"""Figure of the comparison: bars of time and memory, relative to the best peer."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from spikeguard.benchmarking.peers import FLOOR, PEERS
from spikeguard.benchmarking.table import Row
from spikeguard.benchmarking.variants import OURS
from spikeguard.storage.atomic_files import atomic

__all__ = ["NoMatplotlib", "plot"]

_COLOURS = {
    "SpikeGuard": "#0b6e4f",
    "spikingjelly": "#b8b8b8",
    "snntorch": "#9a9a9a",
    "norse": "#7c7c7c",
    "plain": "#5e5e5e",
    FLOOR: "#d8a31a",
}
_LABELS = {
    "SpikeGuard": "SpikeGuard, fastest kernel",
    "spikingjelly": "SpikingJelly",
    "snntorch": "snnTorch",
    "norse": "Norse",
    "plain": "plain loop",
    FLOOR: "same network as an ANN",
}


class NoMatplotlib(ImportError):
    """Matplotlib is not installed."""


def plot(rows: Sequence[Row], path: Path) -> list[Path]:
    """Draw the table and write it as SVG and PNG.

    Args:
        rows: Rows of the comparison.
        path: Path of the files, without suffix.

    Returns:
        Paths of the files.

    Raises:
        NoMatplotlib: If matplotlib is not installed.
    """
    try:
        matplotlib = import_module("matplotlib")
        figure_module = import_module("matplotlib.figure")
    except ImportError as error:
        raise NoMatplotlib(
            "no plot: matplotlib is not installed (pip install 'spikeguard[bench]')."
        ) from error
    groups = list(dict.fromkeys((row.network, row.work) for row in rows))
    names = [name for name in _COLOURS if any(_name(row) == name for row in rows)]
    height = 1.2 + len(groups) * (0.16 * len(names) + 0.14)
    figure = figure_module.Figure(figsize=(10, height), layout="constrained")
    time, memory = figure.subplots(1, 2, sharey=True)
    _bars(time, rows, groups, names, "ms", "time of one step, best peer = 1 (label: ms)")
    _bars(memory, rows, groups, names, "mib", "peak memory, best peer = 1 (label: MiB)")
    time.set_yticks(range(len(groups)), [f"{network}\n{work}" for network, work in groups])
    time.invert_yaxis()
    handles, labels = time.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    written = []
    for ending in ("svg", "png"):
        target = path.with_suffix(f".{ending}")
        with matplotlib.rc_context({"svg.hashsalt": "spikeguard"}), atomic(target) as temporary:
            figure.savefig(temporary, format=ending, dpi=150)
        written.append(target)
    return written


def _bars(
    axes: Any,
    rows: Sequence[Row],
    groups: Sequence[tuple[str, str]],
    names: Sequence[str],
    field: str,
    title: str,
) -> None:
    thick = 0.84 / len(names)
    for number, group in enumerate(groups):
        if all(getattr(row, field) is None for row in rows if (row.network, row.work) == group):
            axes.text(0.02, number, "not measured", va="center", fontsize=7, color="#7c7c7c")
    for place, name in enumerate(names):
        at, lengths, labels = [], [], []
        for number, group in enumerate(groups):
            here = [row for row in rows if (row.network, row.work) == group]
            value, best = _value(here, name, field), _best_peer(here, field)
            if value is not None and best:
                at.append(number + (place - (len(names) - 1) / 2) * thick)
                lengths.append(value / best)
                labels.append(f"{value:.0f}" if value >= 10 else f"{value:.2g}")
        bars = axes.barh(at, lengths, thick, color=_COLOURS[name], label=_LABELS[name])
        axes.bar_label(bars, labels, padding=2, fontsize=7)
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1, y=0.02)


def _name(row: Row) -> str:
    return "SpikeGuard" if row.variant.startswith(OURS) else row.variant


def _value(rows: Sequence[Row], name: str, field: str) -> float | None:
    """Return the number of a variant; for "SpikeGuard" that of the fastest kernel."""
    mine = [row for row in rows if _name(row) == name]
    if not mine:
        return None
    value: float | None = getattr(min(mine, key=lambda row: row.ms), field)
    return value


def _best_peer(rows: Sequence[Row], field: str) -> float | None:
    found = [v for row in rows if row.variant in PEERS and (v := getattr(row, field)) is not None]
    return min(found, default=None)

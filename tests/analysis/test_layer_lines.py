"""Lines by layer: every line is drawn, also where there are more lines than line styles."""

import numpy as np

from spikeguard.analysis.layer_lines import layer_plot
from spikeguard.analysis.measurement import Measurement


def test_no_line_is_left_out():
    found = Measurement.of("x", {}, 1, {"layer": ["a", "b"]})
    lines = {f"line {k}": (np.array([0.1, 0.2 + k / 10]), None, None) for k in range(5)}
    texts = {"name": "x", "title": "t", "summary": "s", "y_title": "%"}
    plot = layer_plot({"net": found}, lambda m: lines, **texts)
    assert [mark.name for mark in plot.marks] == [f"net, line {k}" for k in range(5)]
    assert [mark.y[1] for mark in plot.marks] == [100 * (0.2 + k / 10) for k in range(5)]

"""What an analysis shows: plots and tables as plain data, drawn by the report and the notebooks.

An analysis says what is shown; colours, fonts and interaction belong to whoever draws it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Heat", "Plot", "Rule", "Series", "Surface", "Table"]


@dataclass(frozen=True, eq=False)
class Series:
    """Numbers y over x.

    Args:
        x: Numbers, or labels of a categorical axis [N].
        y: Numbers [N]; NaN leaves a gap.
        name: Name in the legend, which "" leaves out, and in what is read out.
        network: Label of the network whose colour it has; "" for a neutral one.
        low: Lower ends of intervals [N], or None.
        high: Upper ends of intervals [N], or None.
        kind: Drawn as a line, as bars, as points, or as a histogram outline.
        dash: Line style, which also tells apart several series of one network; points that are not
            solid are drawn open.
        legend: Whether lines and points are in the legend; the title explains those that are not.
    """

    x: ArrayLike
    y: ArrayLike
    name: str = ""
    network: str = ""
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    kind: Literal["line", "bars", "points", "steps", "cumulative"] = "line"
    dash: Literal["solid", "dash", "dot"] = "solid"
    legend: bool = True


@dataclass(frozen=True, eq=False)
class Heat:
    """Numbers on a grid, as coloured cells, never interpolated.

    Args:
        z: Numbers [rows, columns]; row 0 is at the bottom unless ``image``. NaN is left empty.
        x: Coordinates or labels of the columns.
        y: Coordinates or labels of the rows.
        unit: What the colour means.
        low: Value of the first colour, or None for the smallest.
        high: Value of the last colour, or None for the largest.
        diverging: Two hues around the middle of low and high, for signed numbers.
        levels: Number of contour lines over the cells; 0 draws none.
        image: Row 0 at the top and square cells without axes, as for an image.
        grey: Shades of grey, for an image as it is seen.
        colours: Colours of the whole numbers 0, 1, ... instead of a scale.
    """

    z: ArrayLike
    x: ArrayLike
    y: ArrayLike
    unit: str = ""
    low: float | None = None
    high: float | None = None
    diverging: bool = False
    levels: int = 0
    image: bool = False
    grey: bool = False
    colours: Sequence[str] = ()

    @property
    def grid(self) -> NDArray[Any]:
        """The numbers as an array."""
        return np.asarray(self.z, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Surface:
    """Numbers on a grid, as the height of a surface with contour lines; the chart is in 3-D.

    Args:
        z: Numbers [rows, columns].
        x: Coordinates of the columns.
        y: Coordinates of the rows.
        unit: What the height means.
        low: Lower end of height and colour, or None for the smallest number.
        high: Upper end, or None for the largest.
        levels: Number of contour lines.
    """

    z: ArrayLike
    x: ArrayLike
    y: ArrayLike
    unit: str = ""
    low: float | None = None
    high: float | None = None
    levels: int = 10


@dataclass(frozen=True)
class Rule:
    """A vertical or horizontal line with a word, such as the threshold."""

    at: float
    text: str = ""
    axis: Literal["x", "y"] = "x"


@dataclass(frozen=True, eq=False)
class Plot:
    """One chart.

    Args:
        name: Its id within the analysis, unique there: letters, digits and hyphens.
        title: Heading.
        summary: The finding in words, for people who cannot see the chart.
        marks: Series, one Heat, or one Surface.
        x_title: Title of the axis, with its unit.
        y_title: The same.
        x_log: Logarithmic axis.
        y_log: The same.
        y_range: Limits of the axis, or None; shared limits make small multiples comparable.
        x_range: The same.
        rules: Lines across the chart.
        network: Label of the one network it shows; "" for several.
        width: "half" beside another one, "full" alone, "small" in a row of many.
        height: Pixels.
    """

    name: str
    title: str
    summary: str
    marks: Sequence[Series | Heat | Surface]
    x_title: str = ""
    y_title: str = ""
    x_log: bool = False
    y_log: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    rules: Sequence[Rule] = ()
    network: str = ""
    width: Literal["small", "half", "full"] = "half"
    height: int = 260


@dataclass(frozen=True)
class Table:
    """A table of text.

    Args:
        head: Titles of the columns; the first column names the row.
        rows: Cells of every row.
        caption: Sentence below it: what the numbers are, n and interval.
    """

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    caption: str = ""

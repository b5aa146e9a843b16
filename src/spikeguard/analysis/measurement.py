"""What an analysis returns: named arrays with axes and units, stored as npz and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeguard.storage.atomic_files import write_npz, write_text
from spikeguard.storage.digests import is_sealed, sealed
from spikeguard.storage.npz_files import DamagedFile, read_npz

__all__ = ["Measurement", "Quantity"]

_CARD, _AXIS, _VALUES = "card", "axis.", "values."
_CELLS = 100_000  # values of a quantity that a CSV file lists


@dataclass(frozen=True, eq=False)
class Quantity:
    """One array of numbers.

    Args:
        values: Numbers; one dimension for each axis, none for a single number.
        axes: Name of each dimension, such as ("layer", "step").
        unit: Unit in plain text, such as "v_th", "share" or "spikes an image".
        about: What the numbers are, in one line.

    Raises:
        ValueError: If the axes do not fit the dimensions.
    """

    values: NDArray[Any]
    axes: tuple[str, ...] = ()
    unit: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        if self.values.ndim != len(self.axes):
            raise ValueError(
                f"Quantity: {len(self.axes)} axes {self.axes} for values of shape "
                f"{self.values.shape}."
            )


@dataclass(frozen=True, eq=False)
class Measurement:
    """The result of one analysis of one network.

    Attributes:
        analysis: Name of the analysis in ``ANALYSES``.
        settings: Its settings as plain data, with ``seed``.
        samples: Number of images behind the numbers.
        quantities: The arrays by name.
        axes: Labels (text) or coordinates (numbers) along each axis by name.
        identity: Digests of weights, network and images, and the version of the code; empty for a
            measurement that was not stored.
    """

    analysis: str
    settings: Mapping[str, Any]
    samples: int
    quantities: Mapping[str, Quantity]
    axes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, quantity in self.quantities.items():
            for axis, length in zip(quantity.axes, quantity.values.shape, strict=True):
                known = self.axes.get(axis)
                if known is None or len(known) != length:
                    raise ValueError(
                        f"Measurement: {name} has {length} entries along {axis!r}, the axis has "
                        f"{'none' if known is None else len(known)}."
                    )

    @classmethod
    def of(
        cls,
        analysis: str,
        settings: Mapping[str, Any],
        samples: int,
        axes: Mapping[str, ArrayLike],
        **quantities: tuple[ArrayLike, Sequence[str], str, str],
    ) -> Measurement:
        """Return a measurement of quantities written as (values, axes, unit, about).

        Example:
            >>> m = Measurement.of("rates", {}, 10, {"layer": ["a", "b"]},
            ...                    rate=([0.1, 0.3], ["layer"], "share", "firing rate"))
            >>> m["rate"].tolist(), m.number("rate", layer="b")
            ([0.1, 0.3], 0.3)
        """
        named = {
            name: Quantity(np.asarray(values), tuple(along), unit, about)
            for name, (values, along, unit, about) in quantities.items()
        }
        return cls(analysis, settings, samples, named, {k: np.asarray(v) for k, v in axes.items()})

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.quantities[name].values

    def number(self, name: str, **at: Any) -> float:
        """Return one number of a quantity, by the label or coordinate on each of its axes.

        Raises:
            KeyError: If an axis is missing or has no such label.
        """
        quantity, place = self.quantities[name], []
        for axis in quantity.axes:
            found = np.flatnonzero(self.axes[axis] == at[axis])
            if len(found) == 0:
                raise KeyError(f"{name}: {axis} has no {at[axis]!r}")
            place.append(found[0])
        return float(quantity.values[tuple(place)])

    def save(self, path: str | Path, *, identity: Mapping[str, str] | None = None) -> None:
        """Write ``path``, an npz file, and a CSV file of the same name beside it, atomically.

        The CSV file has one line a number: quantity, unit, its place on every axis, value. It
        leaves out quantities of more than 100,000 numbers.

        Args:
            path: File name ending in ``.npz``.
            identity: See ``identity_of``; that of the measurement when left out.
        """
        path = Path(path)
        card = sealed(
            {
                "analysis": self.analysis,
                "settings": dict(self.settings),
                "samples": self.samples,
                "quantities": {
                    name: {"axes": list(q.axes), "unit": q.unit, "about": q.about}
                    for name, q in self.quantities.items()
                },
                "identity": dict(self.identity if identity is None else identity),
            }
        )
        write_text(path.with_suffix(".csv"), self.csv())
        write_npz(
            path,
            **{_CARD: np.str_(json.dumps(card))},
            **{_AXIS + name: labels for name, labels in self.axes.items()},
            **{_VALUES + name: q.values for name, q in self.quantities.items()},
        )

    def csv(self) -> str:
        """Return the text of the CSV file; see :meth:`save`."""
        written = io.StringIO()
        out = csv.writer(written, lineterminator="\n")
        axes = list(self.axes)
        out.writerow(["quantity", "unit", *axes, "value"])
        for name, quantity in self.quantities.items():
            if quantity.values.size > _CELLS:
                continue
            places = product(*(self.axes[axis].tolist() for axis in quantity.axes))
            for place, value in zip(places, quantity.values.ravel().tolist(), strict=True):
                at = dict(zip(quantity.axes, place, strict=True))
                out.writerow([name, quantity.unit, *(at.get(axis, "") for axis in axes), value])
        return written.getvalue()

    @classmethod
    def load(cls, path: str | Path) -> Measurement:
        """Load a measurement written by :meth:`save`.

        Raises:
            ValueError: If the file is damaged or no measurement; the message names the file.
            OSError: If it cannot be read.
        """
        try:
            stored = read_npz(path)
            card = json.loads(str(stored[_CARD]))
            is_sealed(card)
            quantities = {
                name: Quantity(
                    stored[_VALUES + name], tuple(about["axes"]), about["unit"], about["about"]
                )
                for name, about in card["quantities"].items()
            }
            axes = {
                name.removeprefix(_AXIS): values
                for name, values in stored.items()
                if name.startswith(_AXIS)
            }
            return cls(
                card["analysis"],
                card["settings"],
                int(card["samples"]),
                quantities,
                axes,
                card["identity"],
            )
        except DamagedFile as error:
            raise ValueError(f"{error} Delete it and measure again.") from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"{path}: no measurement, or a damaged one ({error}); delete it and measure again."
            ) from error

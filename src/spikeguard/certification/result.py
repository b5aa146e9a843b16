"""Certification: certified radii of images, attacks on the same classifier, and both as curves."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch

from spikeguard.evaluation.statistics import Score

__all__ = ["Certification", "Radius"]

_POINTS = 60  # of a curve


@dataclass(frozen=True)
class Radius:
    """The certificate of one image.

    Attributes:
        index: Place of the image in the test set.
        label: Its class.
        predicted: Class of most votes in the first n0 draws, which is the one that is certified.
        count: Votes for it in the n further draws.
        p: Lower confidence bound of its probability.
        radius: Certified radius in input units; 0 where the classifier abstains.
    """

    index: int
    label: int
    predicted: int
    count: int
    p: float
    radius: float

    def holds(self, radius: float) -> bool:
        """Whether the correct class is certified at a radius."""
        return self.predicted == self.label and self.radius > radius

    @property
    def certainly_wrong(self) -> bool:
        """Whether a wrong class is certified, so that the classifier errs at the image itself."""
        return self.predicted != self.label and self.radius > 0


@dataclass(frozen=True)
class Certification:
    """Certified radii of one smoothed classifier, and attacks on it.

    Attributes:
        smoothing: The noise in words.
        norm: Norm of the radii.
        settings: n0, n, alpha, seed and what else the records depend on, as plain data.
        records: One for each image.
        attacks: By radius, for each image whether an attack made the classifier return another
            class than the label, at a confidence of 1 - alpha. It may cover the first images alone.
        identity: See ``identity_of``; empty where nothing was stored.
    """

    smoothing: str
    norm: str
    settings: Mapping[str, Any]
    records: tuple[Radius, ...] = ()
    attacks: Mapping[float, tuple[bool, ...]] = field(default_factory=dict)
    identity: Mapping[str, str] = field(default_factory=dict)

    @property
    def abstained(self) -> Score:
        """Share of images without a certificate for any class."""
        return _share(each.radius == 0 for each in self.records)

    def certified(self, radius: float) -> Score:
        """Return the certified accuracy: a lower bound, with the interval over images."""
        return _share(each.holds(radius) for each in self.records)

    def attacked(self, radius: float) -> Score | None:
        """Return the accuracy under all attacks of at most this radius: an upper bound.

        It is that of the images that the attack of exactly this radius covers, whose number is its
        ``n``; None where no such attack was run. At 0 and at every larger radius an
        image counts as lost if a wrong class is certified; an attack that fails does not undo the
        success of one of a smaller radius.
        """
        if radius not in {0.0, *self.attacks}:
            return None
        covered = self.records[: len(self.attacks.get(radius, self.records))]
        inside = [broken for r, broken in self.attacks.items() if r <= radius]
        if not covered:
            return None
        return _share(
            not (each.certainly_wrong or any(any(broken[i : i + 1]) for broken in inside))
            for i, each in enumerate(covered)
        )

    @property
    def contradictions(self) -> int:
        """Number of images that an attack broke inside their certified ball.

        Each certificate is wrong with a probability of at most alpha, and so is each attack, so
        that more than a few of them are a fault of the program or of the theorem's assumptions.
        """
        return sum(
            any(any(broken[i : i + 1]) and record.holds(r) for r, broken in self.attacks.items())
            for i, record in enumerate(self.records)
        )

    def radii(self) -> list[float]:
        """Return radii from 0 to beyond the largest one, and those that were attacked."""
        most = max((each.radius for each in self.records), default=0.0)
        most = max([most, *self.attacks]) or 1.0
        return sorted({0.0, *np.linspace(0, 1.05 * most, _POINTS).round(6).tolist(), *self.attacks})

    def csv(self) -> str:
        """Return the curves as CSV: radius, certified and attacked accuracy with intervals."""
        written = io.StringIO()
        out = csv.writer(written, lineterminator="\n")
        ends = ("", "_low", "_high")
        names = [f"{what}{end}" for what in ("certified", "attacked") for end in ends]
        out.writerow(["radius", *names])
        for radius in self.radii():
            scores = (self.certified(radius), self.attacked(radius))
            out.writerow([f"{radius:g}", *(c for score in scores for c in _cells(score))])
        return written.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads."""
        card = {name: getattr(self, name) for name in ("smoothing", "norm", "settings", "identity")}
        card["records"] = [asdict(each) for each in self.records]
        card["attacks"] = {repr(r): list(broken) for r, broken in self.attacks.items()}
        return card

    @classmethod
    def from_dict(cls, card: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError, TypeError, LookupError: If the data are damaged.
        """
        records = tuple(Radius(**each) for each in card["records"])
        attacks = {float(r): tuple(map(bool, broken)) for r, broken in card["attacks"].items()}
        stated = {name: card[name] for name in ("smoothing", "norm", "settings", "identity")}
        return cls(**stated, records=records, attacks=attacks)

    def first(self, images: int) -> Self:
        """Return the result on the first images alone; attacks that cover fewer are left out."""
        enough = {r: broken[:images] for r, broken in self.attacks.items() if len(broken) >= images}
        return replace(self, records=self.records[:images], attacks=enough)


def _share(outcomes: Any) -> Score:
    return Score.of(torch.tensor(list(outcomes), dtype=torch.float64))


def _cells(score: Score | None) -> Sequence[str]:
    if score is None:
        return ("", "", "")
    return tuple(f"{value:.6g}" for value in (score.accuracy, *score.interval))

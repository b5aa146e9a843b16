"""Curves behind an audit: the evidence of its checks as frozen dataclasses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spikeguard.auditing.findings import Verdict
from spikeguard.evaluation.statistics import Score, wilson

__all__ = ["Climb", "Evidence", "Layer", "Radii", "Steps", "Sweep", "evidence"]

_OWN = re.compile(r"its own ")  # name in S4 of the network's own surrogate at another width


@dataclass(frozen=True)
class Climb:
    """G10: the loss at every step of the reported attack, over samples.

    Attributes:
        mean: Mean loss, beginning with the start of the search; None where it is not finite.
        low: Lower quartile.
        high: Upper quartile.
        resisting: Number of samples that resist; the loss is over them, or over all where it is 0.
        last: Number of final steps whose gain G10 judges; 0 where there is nothing to judge.
    """

    mean: tuple[float | None, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    resisting: int
    last: int


@dataclass(frozen=True)
class Steps:
    """G10 and G8: accuracy against the steps of the reported attack.

    Attributes:
        along: Accuracy at each step of one search, beginning with its start.
        ended: Accuracy after all steps and after twice as many, by number of steps.
    """

    along: tuple[Score, ...]
    ended: Mapping[int, Score]


@dataclass(frozen=True)
class Radii:
    """G7, G6, G5: accuracy against eps.

    Attributes:
        pgd: Accuracy under PGD at radii around the audited one.
        far: Accuracy under short PGD at radii at which all images can be made equal, or any image
            is allowed.
        eps: The audited radius.
        bound: Accuracy under the worst of all attacks at ``eps``; None where it is not known.
        clean: Accuracy without an attack; None where it is not known.
        chance: Accuracy of a guess; None where it is not known.
    """

    pgd: Mapping[float, Score]
    far: Mapping[float, Score]
    eps: float
    bound: Score | None
    clean: Score | None
    chance: float | None


@dataclass(frozen=True)
class Sweep:
    """S4: accuracy under PGD with each surrogate.

    Attributes:
        triangles: Triangles of one width in all layers, by half-width.
        scaled: The network's own surrogate at another width, by half-width.
        own: One PGD with the network's own surrogate.
        own_half_width: None where layers differ in it or it is infinite.
        tries: Number of restarts of the own surrogate in the comparison.
        own_tries: Accuracy after these restarts.
        worst: Accuracy when each sample is attacked with its worst surrogate.
    """

    triangles: Mapping[float, Score]
    scaled: Mapping[float, Score]
    own: Score
    own_half_width: float | None
    tries: int
    own_tries: Score
    worst: Score


@dataclass(frozen=True)
class Layer:
    """S7 and S8: how much of a layer passes no gradient, as shares in [0, 1].

    Attributes:
        name: The module's name.
        dead: Share of neurons and steps with a zero surrogate; None where it was not measured.
        zero: Share of zero entries in the gradient at its output; None where not measured.
    """

    name: str
    dead: float | None
    zero: float | None


@dataclass(frozen=True)
class Evidence:
    """Curves that an audit stored; None or empty where a check was not run or stored none.

    Attributes:
        climb: Loss over the steps of the attack.
        steps: Accuracy over the steps of the attack.
        radii: Accuracy against eps.
        sweep: Accuracy by the attacker's surrogate.
        layers: Layers in network order.
    """

    climb: Climb | None = None
    steps: Steps | None = None
    radii: Radii | None = None
    sweep: Sweep | None = None
    layers: tuple[Layer, ...] = ()


def evidence(verdict: Verdict) -> Evidence:
    """Read the curves from the findings of an audit.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: If the evidence of a check does not have
            its format.
    """
    n = verdict.settings.get("samples")
    if n is None:  # no number of samples, no intervals
        return Evidence()
    found = {finding.code: finding.evidence for finding in verdict.findings}
    stored = _Stored(found, int(n))
    return Evidence(
        climb=_climb(stored),
        steps=_steps(stored),
        radii=_radii(stored, verdict),
        sweep=_sweep(stored),
        layers=_layers(stored),
    )


@dataclass(frozen=True)
class _Stored:
    """Evidence by code, and the number of samples of an audit's first look."""

    found: Mapping[str, Mapping[str, Any]]
    n: int

    def get(self, code: str, key: str) -> Any:
        return self.found.get(code, {}).get(key)

    def score(self, accuracy: Any, code: str = "") -> Score:
        """Return an accuracy on as many samples as the check with this code used."""
        share, n = float(accuracy), int(self.get(code, "images") or self.n)
        low, high = wilson(min(share * n, n) if share <= 1 else share * n, n)
        return Score(share, low, high, n)


def _climb(stored: _Stored) -> Climb | None:
    curve = stored.get("G10", "curve")
    if not curve:
        return None
    mean, low, high = (_numbers(curve[key]) for key in ("loss", "low", "high"))
    if not len(mean) == len(low) == len(high):
        raise ValueError("G10 has curves of different lengths")
    return Climb(
        *(mean, low, high),
        resisting=int(stored.get("G10", "resisting") or 0),
        last=int(stored.get("G10", "last") or 0),
    )


def _steps(stored: _Stored) -> Steps | None:
    curve, steps = stored.get("G10", "curve"), stored.get("G8", "steps")
    along = tuple(stored.score(share, "G10") for share in curve["right"]) if curve else ()
    ended = {}
    if steps is not None:
        ended = {
            int(steps): stored.score(stored.get("G8", "once"), "G8"),
            2 * int(steps): stored.score(stored.get("G8", "twice"), "G8"),
        }
    return Steps(along, ended) if along or ended else None


def _radii(stored: _Stored, verdict: Verdict) -> Radii | None:
    curve, clean = stored.get("G7", "curve"), stored.get("G31", "clean")
    if not curve:
        return None
    chance = stored.get("G6", "chance")
    far = [(stored.get(c, "eps"), stored.get(c, "accuracy"), c) for c in ("G6", "G5")]
    bound = verdict.upper_bound
    return Radii(
        pgd={_positive(eps): stored.score(share, "G7") for eps, share in curve},
        far={_positive(eps): stored.score(share, c) for eps, share, c in far if eps is not None},
        eps=_positive(verdict.settings["threat"]["eps"]),
        bound=None if bound is None else _bound(verdict) or stored.score(bound),
        clean=None if clean is None else stored.score(clean, "G31"),
        chance=None if chance is None else float(chance),
    )


def _bound(verdict: Verdict) -> Score | None:
    """Return the bound with its interval; None where the verdict has none."""
    at = verdict.bound
    if at.value is None or at.low is None or at.high is None or at.n is None:
        return None
    return Score(at.value, at.low, at.high, at.n)


def _sweep(stored: _Stored) -> Sweep | None:
    accuracy, widths = stored.get("S4", "accuracy"), stored.get("S4", "half_width")
    if not accuracy or widths is None:
        return None
    placed = {
        name: (_positive(widths[name]), stored.score(share, "S4"))
        for name, share in accuracy.items()
        if widths[name] is not None  # None: infinite, or layers differ
    }
    own, carried = stored.get("S4", "own_half_width"), stored.get("S4", "carried") or ()
    triangles = {at: score for name, (at, score) in placed.items() if not _OWN.match(name)}
    if own is not None and str(*carried[:1]).startswith(
        "Triangular("
    ):  # the own surrogate is a triangle itself
        triangles[_positive(own)] = stored.score(stored.get("S4", "own_once"), "S4")
    return Sweep(
        triangles=dict(sorted(triangles.items())),
        scaled=dict(sorted(at for name, at in placed.items() if _OWN.match(name))),
        own=stored.score(stored.get("S4", "own_once"), "S4"),
        own_half_width=None if own is None else _positive(own),
        tries=int(stored.get("S4", "tries")),
        own_tries=stored.score(stored.get("S4", "own"), "S4"),
        worst=stored.score(stored.get("S4", "worst"), "S4"),
    )


def _layers(stored: _Stored) -> tuple[Layer, ...]:
    dead = stored.get("S7", "dead_surrogate") or stored.get("G15", "dead_surrogate") or {}
    zero = stored.get("S8", "zero") or {}
    return tuple(
        Layer(str(name), _share(dead.get(name)), _share(zero.get(name)))
        for name in dict.fromkeys((*dead, *zero))
    )


def _numbers(values: Any) -> tuple[float | None, ...]:
    return tuple(None if value is None else float(value) for value in values)


def _positive(value: Any) -> float:
    number = float(value)
    if not number > 0:
        raise ValueError(f"radii and half-widths are > 0, got {number:g}")
    return number


def _share(value: Any) -> float | None:
    share = None if value is None else float(value)
    if share is not None and not 0 <= share <= 1:
        raise ValueError(f"a share must be in [0, 1], got {share:g}")
    return share

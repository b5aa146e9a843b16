"""Reader for the results in ``attacks/``: threat set, attacks and accuracies of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from spikeguard.attacks.tuning import describe_tuned
from spikeguard.evaluation.activity import ActivityCost
from spikeguard.evaluation.result_files import require_consistent
from spikeguard.evaluation.search_record import BEFORE, is_of_suite_before
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting.readers.json_files import read_json, reading, require_weights
from spikeguard.storage.digests import UNVERIFIED

__all__ = ["CASCADE", "AttackResult", "read_attacked"]

CASCADE = " + all cheaper of "  # between attack and suite: the result of a cascade
TUNED = " tuned"  # after an attack, or after the suite of a cascade: tuned settings

_ROUNDING = 1e-9
_AROUND = ("EoT", "Graphed")  # gradients that average or replay the one inside


@dataclass(frozen=True)
class AttackResult:
    """One result in ``attacks/``.

    Attributes:
        name: The file's name without its suffix.
        suite: Name of the suite; "" where the file has none.
        norm: Norm of the threat set, with the upper end of its box where that is not 1.
        eps: Its radius, in pixel units.
        draws: Noise draws on which each image was scored.
        eot: Gradients averaged in each attack step.
        limit: Number of attacked images, the first ones; None means all test images.
        clean: Accuracy without an attack.
        attacks: Accuracy under each attack. The name marks results that are not of the plain
            attack: "pgd10 + all cheaper of quick" in a cascade, "pgd10 in bf16" for a bfloat16
            search.
        gradients: For each attack, kinds of its gradients other than backpropagation with the
            network's own surrogate; empty for an attack with that one, or with none.
        worst_case: Share of images that survive every attack.
        zero_gradient: Share of images whose input gradient is exactly zero.
        tuned: How settings of the gradients were chosen, in words; "" where all were fixed.
        cascade: Whether each attack ran only on the images that survived the cheaper ones.
        before: Whether the suite is "snn" before it was a converging search, now "snn-cascade".
        precision: Precision of the attacks' passes.
        seed: Seed of its random streams.
        search: Record of a search that ran until it was converged; see
            ``reporting.sections.search_curve``. None for a suite of attacks.
        line: The attack line that was run instead of a suite, without its EoT; "" for a suite.
        stochastic: Whether the network draws noise.
        settings: Settings of each attack, as ``attacks.describe`` returns them.
        activity: Spikes and synaptic operations of an image; None where the file has none.
        checkpoint: The attacked checkpoint, "best" or "last".
        verified: Whether the file says what it was made with; files of older versions do not.
    """

    name: str
    suite: str
    norm: str
    eps: float
    draws: int
    eot: int
    limit: int | None
    clean: Score
    attacks: Mapping[str, Score]
    gradients: Mapping[str, tuple[str, ...]]
    worst_case: Score
    zero_gradient: float
    tuned: str = ""
    cascade: bool = False
    before: bool = False
    precision: str = "32"
    seed: int = 0
    search: Mapping[str, Any] | None = None
    line: str = ""
    stochastic: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    verified: bool = True
    activity: ActivityCost | None = None
    checkpoint: str = "best"

    @property
    def own_pgd(self) -> dict[str, int]:
        """Steps of each PGD on the cross-entropy with the network's own surrogate.

        Those of a cascade, which ran on a part of the images, and of a search in another precision
        are left out.
        """
        if self.cascade or self.precision != "32":
            return {}
        return {
            name: settings["steps"]
            for name, settings in self.settings.items()
            if (settings.get("kind"), settings.get("loss")) == ("PGD", "cross_entropy")
            and isinstance(settings.get("steps"), int)
            and not self.gradients[name]
        }

    @property
    def title(self) -> str:
        """The name, marked if the result is of the suite before or cannot be verified."""
        mark = "" if self.verified else UNVERIFIED
        return self.name + (BEFORE if self.before else "") + mark


def read_attacked(path: Path, weights: Mapping[str, str] | None = None) -> AttackResult:
    """Read one file of ``attacks/``; its accuracies must be those of the outcomes beside it.

    Args:
        path: The file.
        weights: Digests of the checkpoints by name; a result of other weights is rejected.
    """
    card = read_json(path)
    require_weights(card, weights or {}, path, "attack")
    verified = require_consistent(path.with_name(path.name.removesuffix(".json")), card)
    with reading(path):
        limit, suite = card.get("limit"), str(card.get("suite", ""))
        precision = str(card.get("precision", "32"))
        chosen, cascade = card.get("tuned", {}), bool(card.get("cascade", False))
        mark = f" in {precision}" if precision != "32" else ""
        before = is_of_suite_before(card)
        if cascade and list(card["attacks"]) != ["snn"]:  # which is the only one of its suite
            mark += f"{CASCADE}{suite or path.stem}{BEFORE if before else ''}"
            mark += TUNED if chosen else ""
        attacks = {
            f"{name}{TUNED if not cascade and _is_of(e['settings'], chosen) else ''}{mark}": e
            for name, e in card["attacks"].items()
        }
        return AttackResult(
            name=path.stem,
            suite=suite,
            norm=_norm(card["threat"]),
            eps=float(card["threat"]["eps"]),
            draws=int(card["draws"]),
            eot=int(card.get("eot", 1)),
            limit=None if limit is None else int(limit),
            clean=_score(card["clean"]),
            attacks={str(name): _score(entry) for name, entry in attacks.items()},
            gradients={str(n): tuple(_others(e["settings"])) for n, e in attacks.items()},
            worst_case=_score(card["worst_case"]),
            zero_gradient=float(card["zero_gradient"]),
            tuned=describe_tuned(chosen),
            cascade=cascade,
            before=before,
            precision=precision,
            seed=int(card.get("seed", 0)),
            search=_search(card.get("search")),
            line=str(card.get("attack", "")),
            stochastic=bool(card.get("stochastic", False)),
            settings={str(name): entry["settings"] for name, entry in attacks.items()},
            verified=verified,
            activity=ActivityCost.from_dict(card["activity"]) if "activity" in card else None,
            checkpoint=str(card.get("checkpoint", "best")),
        )


def _norm(threat: Mapping[str, Any]) -> str:
    peak = float(threat.get("peak", 1.0))
    return str(threat["norm"]) if peak == 1 else f"{threat['norm']} peak={peak:g}"


def _score(entry: Mapping[str, Any]) -> Score:
    accuracy, low, high = (float(entry[key]) for key in ("accuracy", "low", "high"))
    score = Score(accuracy, low, high, int(entry["n"]))
    ordered = (
        0 <= score.low <= score.accuracy + _ROUNDING and score.accuracy <= score.high + _ROUNDING
    )
    if not (ordered and score.accuracy <= 1 and score.high <= 1 and score.n >= 1):
        raise ValueError(
            f"an accuracy must be in [0, 1] and in its interval, n >= 1; got {dict(entry)}"
        )
    return score


def _search(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the record of a search; its numbers must be in order, from point to point."""
    if record is None:
        return None
    n, guess = int(record["n"]), record.get("estimate")
    start = float(record.get("start", n))
    names = [str(point["search"]) for point in record["curve"]]
    left = [float(point["left"]) for point in record["curve"]]
    spent = {
        key: [float(point[key]) for point in record["curve"]] for key in ("gradients", "cpu_s")
    }
    falls = all(before >= after >= 0 for before, after in pairwise([n, start, *left]))
    rises = all(
        before <= after < math.inf
        for column in spent.values()
        for before, after in pairwise([0, *column])
    )
    if n < 1 or not (falls and rises):
        raise ValueError("search: survivors must not rise; gradients and cpu_s must not fall")
    if guess is not None:
        guess = {key: float(guess[key]) for key in ("more", "low", "high")}
        if not 0 <= guess["low"] <= guess["more"] <= guess["high"] < math.inf:
            raise ValueError(f"search: an estimate needs 0 <= low <= more <= high; got {guess}")
    curve = [
        {"search": name, "gradients": gradients, "cpu_s": seconds, "left": remain}
        for name, gradients, seconds, remain in zip(names, *spent.values(), left, strict=True)
    ]
    ended, noisy = str(record["ended"]), bool(record.get("noisy", False))
    return {
        "n": n,
        "start": start,
        "curve": curve,
        "ended": ended,
        "noisy": noisy,
        "estimate": guess,
    }


def _is_of(settings: Any, kinds: Mapping[str, Any]) -> bool:
    """Whether an attack uses a gradient of one of these kinds, directly or inside an average."""
    if not isinstance(settings, Mapping):
        return False
    return settings.get("kind") in kinds or any(_is_of(part, kinds) for part in settings.values())


def _others(settings: Any) -> Iterator[str]:
    """Yield the kinds of gradients other than backpropagation, also those inside an average."""
    if isinstance(settings, Mapping):
        if settings.get("kind") == "Converging":  # a portfolio of many gradients
            yield "Converging"
        for name, inner in settings.items():
            if name in ("gradient", "inner") and isinstance(inner, Mapping):
                kind = str(inner.get("kind"))
                if kind not in ("Backprop", *_AROUND):
                    yield kind
            yield from _others(inner)

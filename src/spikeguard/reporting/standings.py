"""Results of each network at each radius: the number a paper would print, and the worst case."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spikeguard.evaluation.activity import ActivityCost
from spikeguard.evaluation.statistics import Score
from spikeguard.reporting import formatting
from spikeguard.reporting.readers.attack_results import CASCADE, AttackResult
from spikeguard.reporting.readers.collect import Network

__all__ = ["Radius", "Standing", "radii", "used_results", "where"]

_ORDER = ("noise", "fgsm", "rfgsm")


@dataclass(frozen=True)
class Standing:
    """Results of one network at one radius, over the attacks of all suites.

    Attributes:
        clean: Accuracy without an attack.
        attacks: Accuracy under each attack, from weak to strong, then the rows of each cascade in
            the order in which they ran, so that they never rise. Where two suites use the same
            name, the lower number.
        own: Names of the attacks without a gradient other than that of the network's own surrogate.
        pgd: Steps of each PGD with the own surrogate, by name; see ``AttackResult.own_pgd``.
        worst_case: The lowest worst case of the suites, never above an attack of this table: an
            upper bound on robust accuracy.
        zero_gradient: Share of images whose input gradient is exactly zero, on every draw tested.
        tuned: How settings of attacks were chosen, in words; empty where all were fixed.
        left_out: Names of results on another number of images, which are not used.
        elsewhere: Checkpoints of the results of another checkpoint, by name, which are not used.
        instead: The attacked checkpoint, where no result is of the one that the recipe attacks.
        unverified: Names of results that do not say what they were made with.
        activity: Spikes and synaptic operations of an image; None where no result has them.
    """

    clean: Score
    attacks: Mapping[str, Score]
    own: frozenset[str]
    worst_case: Score
    zero_gradient: float
    tuned: tuple[str, ...]
    left_out: tuple[str, ...]
    unverified: tuple[str, ...] = ()
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    instead: str = ""
    pgd: Mapping[str, int] = field(default_factory=dict)
    activity: ActivityCost | None = None

    @property
    def printed(self) -> str | None:
        """Name of the attack a paper would print: PGD of the most steps with the own surrogate.

        Of several with as many steps, the strongest one.
        """
        found = [(steps, -self.attacks[name].accuracy, name) for name, steps in self.pgd.items()]
        return max(found)[-1] if found else None

    @property
    def gap(self) -> float | None:
        """Printed accuracy minus worst case, on the same images; None without a printed number."""
        if self.printed is None:
            return None
        return self.attacks[self.printed].accuracy - self.worst_case.accuracy

    @property
    def swept(self) -> bool:
        """Whether any attack used a gradient other than that of the network's own surrogate."""
        return len(self.own) < len(self.attacks)


@dataclass(frozen=True)
class Radius:
    """One threat set, and the results of the networks in it.

    Attributes:
        norm: Its norm.
        eps: Its radius, in pixel units.
        standings: Results by label, in the order of the report; None where not attacked.
    """

    norm: str
    eps: float
    standings: Mapping[str, Standing | None]

    @property
    def attacked(self) -> dict[str, Standing]:
        """Results of the networks that were attacked."""
        return {label: found for label, found in self.standings.items() if found is not None}

    @property
    def printed(self) -> str | None:
        """The attack in the column "as papers print it": the one most networks have."""
        names = [s.printed for s in self.attacked.values() if s.printed is not None]
        return max(names, key=names.count) if names else None

    @property
    def attacks(self) -> list[str]:
        """All attacks, in the order of :attr:`Standing.attacks`."""
        return _in_order(standing.attacks for standing in self.attacked.values())


def radii(networks: Sequence[Network]) -> list[Radius]:
    """Return every radius at which a network was attacked, by norm and size."""
    places = {(result.norm, result.eps) for network in networks for result in network.attacked}
    return [
        Radius(norm, eps, {network.label: _standing(network, norm, eps) for network in networks})
        for norm, eps in sorted(places, key=lambda place: (place[0] != "linf", place))
    ]


def where(place: Radius, places: Sequence[Radius]) -> str:
    """Write a radius of a report, with its norm where the report has several norms."""
    if len({other.norm for other in places}) > 1:
        return formatting.threat(place.norm, place.eps)
    return formatting.radius(place.eps, place.norm)


def _standing(network: Network, norm: str, eps: float) -> Standing | None:
    """Merge a network's results at one radius, over those made on the same number of images.

    Of several numbers of images, one with other gradients is preferred, then the largest.
    """
    here = [r for r in network.attacked if (r.norm, r.eps) == (norm, eps)]
    wanted = _wanted(network, norm, eps)
    results = [r for r in here if r.checkpoint == wanted]
    merged = [_merged(n, results) for n in {result.clean.n for result in results}]
    if not merged:
        return None
    whole = [(found.swept and found.printed is not None, found.clean.n) for found in merged]
    return replace(
        merged[whole.index(max(whole))],
        elsewhere={r.title: r.checkpoint for r in here if r.checkpoint != wanted},
        instead="" if network.checkpoint in (wanted, None) else wanted,
    )


def used_results(network: Network) -> list[AttackResult]:
    """Return the results of the checkpoint that the report shows at their radius."""
    return [r for r in network.attacked if r.checkpoint == _wanted(network, r.norm, r.eps)]


def _wanted(network: Network, norm: str, eps: float) -> str:
    """Return the checkpoint that the recipe attacks, or one that was attacked at this radius."""
    known = {r.checkpoint for r in network.attacked if (r.norm, r.eps) == (norm, eps)}
    own = network.checkpoint
    return own if own is not None and own in known else min(known, default="")


def _merged(n: int, results: Sequence[AttackResult]) -> Standing:
    used = [result for result in results if result.clean.n == n]
    attacks: dict[str, Score] = {}
    for name, score in (item for result in used for item in result.attacks.items()):
        if name not in attacks or score.accuracy < attacks[name].accuracy:
            attacks[name] = score
    return Standing(
        clean=used[0].clean,
        attacks={name: attacks[name] for name in _in_order(result.attacks for result in used)},
        own=_own(used),
        pgd={name: steps for result in used for name, steps in result.own_pgd.items()},
        worst_case=min(
            [*(result.worst_case for result in used), *attacks.values()],
            key=lambda score: score.accuracy,
        ),
        zero_gradient=used[0].zero_gradient,
        tuned=tuple(dict.fromkeys(result.tuned for result in used if result.tuned)),
        left_out=tuple(result.title for result in results if result.clean.n != n),
        unverified=tuple(result.name for result in used if not result.verified),
        activity=next((r.activity for r in used if r.activity is not None), None),
    )


def _own(results: Sequence[AttackResult]) -> frozenset[str]:
    names = ((name, others) for result in results for name, others in result.gradients.items())
    return frozenset(name for name, others in names if not others)


def _in_order(results: Iterable[Iterable[str]]) -> list[str]:
    """Return all names: single attacks by strength, the rows of each cascade as they ran."""
    single, rows = set(), dict[str, int]()
    for names in results:
        for place, name in enumerate(names):
            if CASCADE in name:
                rows[name] = max(place, rows.get(name, 0))
            else:
                single.add(name)
    cascades = sorted(rows, key=lambda name: (name.partition(" ")[2], rows[name]))
    return [*sorted(single, key=_strength), *cascades]


def _strength(name: str) -> tuple[int, int, str, float, str]:
    """Return a sort key: noise, single steps, PGD by steps, PGD with other surrogates by width."""
    first, _, settings = name.partition(" ")
    base, _, variant = first.partition("/")
    place = _ORDER.index(base) if base in _ORDER else len(_ORDER)
    steps = re.search(r"\d+", base) or re.search(r"(?<=\bsteps=)\d+", settings)
    width = re.search(r"\d+(?:\.\d+)?", variant)
    return (
        place + 10 * bool(variant),
        int(steps[0]) if steps else 0,
        base,
        float(width[0]) if width else 0.0,
        name,
    )

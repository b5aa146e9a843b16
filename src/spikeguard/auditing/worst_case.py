"""The printed number and the bound, measured: the audit's attacks and stored evaluations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from spikeguard.attacks.base import Attack, cost, describe
from spikeguard.attacks.gradients.base import Backprop, unwrap
from spikeguard.attacks.searches.converging import Converging
from spikeguard.attacks.suite_definitions import SHORT_SEARCH
from spikeguard.attacks.suites import suitable, suite
from spikeguard.attacks.threat import ThreatViolation
from spikeguard.attacks.threat_names import norm_of
from spikeguard.auditing.check import reason
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.numbers import Claim, PrintedNumber, judge
from spikeguard.data.images import ImageSet
from spikeguard.evaluation.estimates import Estimate
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.statistics import Score
from spikeguard.evaluation.worst_case import lowest, worst_of
from spikeguard.preflight.quick import warn
from spikeguard.rng import key
from spikeguard.system.model_errors import is_model_error

__all__ = ["Measured", "attack_label", "lowest_bound", "measure", "require_same_images"]


@dataclass(frozen=True)
class Measured:
    """The numbers of an audit: the printed one, the bound, and the attacks behind the bound."""

    printed: PrintedNumber
    bound: Score | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Outcomes of an attack or of a stored worst case, on the first images of the data set."""

    right: Tensor
    x_adv: Tensor | None


def measure(
    context: Context,
    images: ImageSet,
    attack: Attack,
    *,
    later: Sequence[Context] = (),
    claim: Claim | None = None,
    stored: Mapping[str, Evaluation] | None = None,
    max_gap: float,
    out: Path | None = None,
) -> Measured:
    """Return the printed number, and the bound on the same images.

    The bound is the per-sample worst of all attacks that the audit made at its eps and of the
    stored evaluations. If none of these is a converging search, a short one is run. Where they
    cover different numbers of images, both numbers are given on the one at which the upper end of
    the bound's interval is lowest, with intervals for that choice. For a stochastic model the bound
    is not above the printed number, nor above a worst case that a check has computed.

    Args:
        context: The audit, after its checks.
        images: The data set whose first images the audit used.
        attack: The attack that a paper would print; run if no stored evaluation has it.
        later: The context of each later look; it starts with the same images.
        claim: A number measured elsewhere, judged instead of the attack's.
        stored: Evaluations of the same model and threat set, by name.
        max_gap: The gap between the two that is accepted, as a share.
        out: Folder from which a killed search continues; None stores nothing.
    """
    stored = stored or {}
    right, why = None, ""
    if claim is None:
        right, why = _printed(context, attack, stored)
    searched = _search(context, stored, out)
    results = [one for one in (searched, *stored.values()) if one is not None]
    made = [_Source(one.right, one.x_adv) for one in context.made_on_any()]
    sources = [*made, *(_stored(one) for one in results)]
    names = [f"{len(made)} attack{'s' * (len(made) > 1)} of this audit"] if made else []
    if searched is not None:
        names.append(f"a converging search of {SHORT_SEARCH} gradients a sample")
    names += [f"the stored result {name}" for name in stored]
    label = attack_label(attack) if claim is None else claim.protocol or "printed number"
    most = None if right is None else len(right)
    parts = []
    if context.stochastic:
        parts = [worst for look in (context, *later) for worst in look.worsts]
        parts += [] if right is None else [right]
    candidates = _on_each_size(context, images, sources, parts, most, len(made))
    worst, bound = lowest_bound(candidates) if candidates else (None, None)
    if claim is not None:
        score = Score.from_share(claim.accuracy, claim.n)
        gap = None if bound is None else Estimate.unpaired(score, bound)
        return Measured(
            judge(label, score, bound, gap, paired=False, max_gap=max_gap), bound, tuple(names)
        )
    if right is None or worst is None:
        printed = PrintedNumber(label, "not judged", max_gap=max_gap, why=why)
        return Measured(printed, bound, tuple(names))
    right = right[: len(worst)]
    chosen_from = len(sources) + len(parts) + 1 if context.stochastic else 1  # low by chance
    gap = Estimate.paired(right, worst, chosen_from * len(candidates), nested=True)
    printed = judge(label, Score.of(right), bound, gap, paired=True, max_gap=max_gap)
    return Measured(printed, bound, tuple(names))


def require_same_images(stored: Mapping[str, Evaluation], images: ImageSet) -> None:
    """Raise ValueError if a stored evaluation is not of the first images of a data set."""
    labels = torch.as_tensor(images.labels)
    for name, found in stored.items():
        n = found.samples
        first = torch.equal(found.index, torch.arange(n))
        if n > len(labels) or not first or not torch.equal(found.labels, labels[:n]):
            raise ValueError(
                f"audit: the stored result {name} is of other images; move it away and attack again"
            )


def attack_label(attack: Attack) -> str:
    """Return an attack in words: "PGD-40, own surrogate"."""
    gradient = unwrap(getattr(attack, "gradient", None))
    steps = getattr(attack, "steps", None)
    name = type(attack).__name__ + (f"-{steps}" if steps else "")
    name += f" {variant}" if (variant := getattr(attack, "variant", None)) else ""
    if gradient is None:
        return name
    own = isinstance(gradient, Backprop)
    return f"{name}, {'own surrogate' if own else type(gradient).__name__}"


def _printed(
    context: Context, attack: Attack, stored: Mapping[str, Evaluation]
) -> tuple[Tensor | None, str]:
    """Return the outcomes under an attack, stored or made now, or None and why there are none."""
    wanted = json.loads(json.dumps(describe(attack)))
    found = [
        one.outcomes[name]
        for one in stored.values()
        if not one.cascade and one.precision == "32"
        for name, settings in one.settings.items()
        if settings == wanted and one.samples >= len(context)
    ]
    if found:
        return max(found, key=len), ""
    try:
        return context.attacked(attack).right, ""
    except Exception as error:
        if not (is_model_error(error) or isinstance(error, ThreatViolation)):
            raise
        return None, reason(error)


def _search(
    context: Context, stored: Mapping[str, Evaluation], out: Path | None
) -> Evaluation | None:
    """Return the result of a short converging search; None if a stored one is as strong.

    If it cannot run, for want of a gradient or of finite logits or because the model's own code
    raises, a warning states why.
    """
    if any(_searches(each, len(context)) for each in stored.values()):
        return None
    attacks: Mapping[str, Attack] = {}
    if context.on_events:
        attacks, _ = suitable(_on_events(context), context.model, context.x[:1])
    else:
        attacks = {"snn": Converging(context.threat, SHORT_SEARCH)}
    try:
        return evaluate(
            context.model,
            (context.x, context.y),
            attacks,
            seed=key(context.seed, "audit", "search"),
            batch_size=context.batch_size,
            out=out,
            cascade=True,
            check=False,
            progress=None,
        )
    except Exception as error:
        if not (is_model_error(error) or isinstance(error, ThreatViolation)):
            raise
        warn([f"audit: the bound is without a converging search: {reason(error)}"])
        return None


def _on_events(context: Context) -> dict[str, Attack]:
    """Return the attacks of the suite "events" that cost no more than the short search."""
    eot = EOT if context.stochastic else 1
    found = suite("events", eps=context.threat.eps, norm=norm_of(context.threat), eot=eot)
    return {name: each for name, each in found.items() if cost(each) <= SHORT_SEARCH * eot}


def _searches(evaluation: Evaluation, n: int) -> bool:
    """Whether an evaluation has a search at least as long as the short one, on n images or more."""
    settings = [one for one in evaluation.settings.values() if isinstance(one, Mapping)]
    searches = [one for one in settings if one.get("kind") == Converging.__name__]
    long = any(one["budget"] >= SHORT_SEARCH for one in searches)
    events = evaluation.cascade and {"greedy/assg", "retiming/assg"} & set(evaluation.settings)
    return evaluation.samples >= n and (long or bool(events))


def _stored(evaluation: Evaluation) -> _Source:
    inputs = None if evaluation.worst is None else evaluation.worst.x
    return _Source(evaluation.outcomes["worst_case"], inputs)


def lowest_bound(candidates: Sequence[Tensor]) -> tuple[Tensor, Score]:
    """Return the outcomes whose score has the lowest upper end, and that score.

    The choice looks at the outcomes, so the intervals of all candidates share the error rate.

    Args:
        candidates: Share of draws on which each sample is correct, on different numbers of samples.
    """
    scores = [Score.of(right, len(candidates)) for right in candidates]
    best = min(range(len(scores)), key=lambda place: scores[place].high)
    return candidates[best], scores[best]


def _on_each_size(
    context: Context,
    images: ImageSet,
    sources: Sequence[_Source],
    parts: Sequence[Tensor],
    most: int | None,
    made: int,
) -> list[Tensor]:
    """Return the per-sample worst on each number of images that sources cover.

    The first ``made`` sources are attacks of the audit, some of them on a part of its images.
    """
    whole = {max(len(source.right), len(context)) for source in sources[:made]}  # not of a part
    sizes = sorted(
        whole | {len(source.right) for source in sources[made:]} | ({most} if most else set())
    )
    if most is not None:
        sizes = [n for n in sizes if n <= most]
    return [_worst(context, images, sources, parts, n) for n in sizes if sources]


def _worst(
    context: Context,
    images: ImageSet,
    sources: Sequence[_Source],
    parts: Sequence[Tensor],
    n: int,
) -> Tensor:
    """Return the worst of the sources on the first n images, not above any of the parts [n]."""
    x, y = images.batch(slice(n))

    def score(chosen: Tensor) -> Tensor:
        fresh, size = key(context.seed, "audit", "worst"), context.batch_size
        found = evaluate(
            context.model, (chosen, y), {}, seed=fresh, batch_size=size, check=False, progress=None
        )
        return found.outcomes["clean"]

    worst = worst_of(
        [source.right for source in sources],
        [source.x_adv for source in sources],
        x,
        score if context.stochastic else None,
    )
    return lowest([worst, *(part[:n] for part in parts if len(part) >= n)])

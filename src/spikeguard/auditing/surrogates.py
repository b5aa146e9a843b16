"""S4: does the number survive an attacker with another surrogate?"""

from __future__ import annotations

from spikeguard.auditing.check import judged, not_run
from spikeguard.auditing.context import Context
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.shares import half_width, percent
from spikeguard.neurons import Neuron, Surrogate, Triangular

__all__ = ["surrogate_sweep"]

_WIDTHS = {"full": (0.25, 0.5, 1.0, 2.0, 3.5, 5.0), "quick": (0.5, 1.0, 2.0, 5.0)}
_FACTORS = {"full": (0.25, 0.5, 2.0, 5.0), "quick": (2.0, 5.0)}


def surrogate_sweep(context: Context) -> Finding:
    """The attacker's surrogate does not decide the result.

    A network carries the surrogate it was trained with, but the attacker need not use it: PGD runs
    again with triangles of half-width 0.25 to 5, and with the model's own a quarter to five times
    as wide. If the per-sample worst case of these is lower, it is compared with as many restarts of
    PGD with the model's own, so that more tries alone make no difference.

    Source: Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266); Xu et al. (arXiv:2209.03358).
    """
    carried = {m.surrogate for m in context.model.modules() if isinstance(m, Neuron)}
    if not carried:
        return not_run(
            "S4",
            surrogate_sweep,
            "the model has no spiking layer of SpikeGuard's whose surrogate could be exchanged",
            remedy="build the network from spikeguard.neurons",
        )
    widths, factors = _WIDTHS[context.budget], _FACTORS[context.budget]
    others = {
        name: context.attacked(context.pgd(surrogate=surrogate))
        for name, surrogate in _others(carried, widths, factors).items()
    }
    once = context.attacked(context.pgd())
    worst = float(context.worst([once, *others.values()]).mean())
    own, tries = once.accuracy, 1
    if worst < own - _room(own, context):  # more tries alone lower it too: how far?
        tries = 1 + len(others)
        own = context.attacked(context.pgd(restarts=tries)).accuracy
    room = _room(own, context)
    strongest = min(others, key=lambda name: others[name].accuracy)
    least = others[strongest].accuracy
    with_it = f"with {strongest} {percent(least)}"
    if least >= own - room:
        with_it = f"the worst of {1 + len(others)} surrogates for each sample {percent(worst)}"
    return judged(
        "S4",
        surrogate_sweep,
        failed=worst < own - room,
        measured=f"own surrogate {percent(own)}"
        + (f" after {tries} tries" if tries > 1 else "")
        + f", worst of {1 + len(others)} surrogates {percent(worst)}",
        threshold=f"worst of the surrogates >= own - {100 * room:.1f} points",
        sound="other surrogates find no more adversarial examples than as many tries with its own",
        fault=f"PGD with the model's own surrogate leaves {percent(own)}, {with_it}: the number "
        "depends on the attacker's surrogate; believe the lower one",
        remedy="report the per-sample worst case over surrogates (suite 'surrogates')",
        evidence={
            "own": own,
            "own_once": once.accuracy,
            "tries": tries,
            "worst": worst,
            "accuracy": {name: outcome.accuracy for name, outcome in others.items()},
            "carried": sorted(map(str, carried)),
        },
    )


def _room(accuracy: float, context: Context) -> float:
    return max(0.01, half_width(accuracy, len(context)))


def _others(
    carried: set[Surrogate], widths: tuple[float, ...], factors: tuple[float, ...]
) -> dict[str, Surrogate | float]:
    """Return the surrogates to try, by name; none twice, not the one every layer carries."""
    own = {surrogate.half_width for surrogate in carried}
    alone = next(iter(own)) if len(own) == 1 else None
    others: dict[str, Surrogate | float] = {}
    for width in widths:
        if carried != {Triangular(width)}:
            name = f"a triangle of half-width {width:g}"
            if alone in (2 * width, width / 2):
                name = f"a triangle {_times(width / alone)} as wide"
            others[name] = Triangular(width)
    for factor in factors:
        if not (carried == {Triangular(alone or 1.0)} and (alone or 1.0) * factor in widths):
            others[f"its own {_times(factor)} as wide"] = factor
    return others


def _times(factor: float) -> str:
    return {0.5: "half", 2.0: "twice"}.get(factor, f"{factor:g} times")

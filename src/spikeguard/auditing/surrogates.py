"""S4: does the number survive an attacker with another surrogate?"""

from __future__ import annotations

from spikeguard.auditing.context import Context, judged, title
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.shares import half_width, percent
from spikeguard.neurons import Neuron, Surrogate, Triangular

__all__ = ["surrogate_sweep"]

_WIDTHS = (0.5, 1.0, 2.0, 4.0)
_FACTORS = (2.0, 4.0)
_NARROW = 0.5  # below this half-width the model's own surrogates are widened too


def surrogate_sweep(context: Context) -> Finding:
    """The attacker's surrogate does not decide the result.

    A network carries the surrogate it was trained with, but the attacker need not use it: PGD runs
    again with triangular surrogates of several absolute half-widths, and with the model's own made
    wider where it is narrow. If the per-sample worst case of these is lower, it is compared with as
    many restarts of PGD with the model's own, so that more tries alone make no difference.

    Source: Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266); Xu et al. (arXiv:2209.03358).
    """
    carried = {m.surrogate for m in context.model.modules() if isinstance(m, Neuron)}
    if not carried:
        return Finding(
            "S4",
            title(surrogate_sweep),
            "not run",
            "the model has no spiking layer of SpikeGuard's whose surrogate could be exchanged",
            remedy="build the network from spikeguard.neurons",
        )
    others = {
        name: context.attacked(context.pgd(surrogate=surrogate))
        for name, surrogate in _others(carried).items()
    }
    once = context.attacked(context.pgd())
    worst = float(context.worst([once, *others.values()]).mean())
    own, tries = once.accuracy, 1
    if worst < own - _room(own, context):  # more tries alone lower it too: how far?
        tries = 1 + len(others)
        own = context.attacked(context.pgd(restarts=tries)).accuracy
    room = _room(own, context)
    strongest = min(others, key=lambda name: others[name].accuracy)
    return judged(
        "S4",
        surrogate_sweep,
        failed=worst < own - room,
        measured=f"own surrogate {percent(own)}"
        + (f" after {tries} tries" if tries > 1 else "")
        + f", worst of {1 + len(others)} surrogates {percent(worst)}",
        threshold=f"worst of the surrogates >= own - {100 * room:.1f} points",
        sound="other surrogates find no more adversarial examples than as many tries with its own",
        fault=f"with its own surrogate {percent(own)} of the samples look robust, with {strongest} "
        f"it is {percent(others[strongest].accuracy)}: the number is an artefact of the attacker's "
        "gradient",
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


def _others(carried: set[Surrogate]) -> dict[str, Surrogate | float]:
    """Return the surrogates to try, by name; not the one that every layer carries already."""
    others: dict[str, Surrogate | float] = {
        f"a surrogate of half-width {width:g}": Triangular(width)
        for width in _WIDTHS
        if carried != {Triangular(width)}
    }
    if min(surrogate.half_width for surrogate in carried) < _NARROW:
        others |= {f"its own widened {factor:g} times": factor for factor in _FACTORS}
    return others

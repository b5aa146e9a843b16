"""Does the accuracy hold for an attacker with another surrogate? Check S4."""

from __future__ import annotations

import torch

from spikeguard.auditing.check import CheckOutcome, judged, not_run
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.input_gradients import dead_surrogates
from spikeguard.auditing.tolerances import LUCK, percent
from spikeguard.models.adapters.foreign_neuron import ForeignError
from spikeguard.neurons.modes import spiking_layers
from spikeguard.neurons.surrogate import Surrogate, Triangular
from spikeguard.preflight.unknown_spikes import OUT_OF_REACH, unknown_spikes

__all__ = ["surrogate_sweep"]

_WIDTHS = {"full": (0.25, 0.5, 1.0, 2.0, 3.5, 5.0), "quick": (0.5, 1.0, 2.0, 5.0)}
_FACTORS = {"full": (0.25, 0.5, 2.0, 5.0), "quick": (2.0, 5.0)}
_ALIKE = 1.5  # surrogates whose widths differ by a smaller factor count as equally wide


def surrogate_sweep(context: Context) -> CheckOutcome:
    """The attacker's surrogate does not decide the result.

    A network uses the surrogate it was trained with, but the attacker may use another: PGD runs
    again with triangles of half-width 0.25 to 5, and with the model's own surrogate a quarter to
    five times as wide. If the per-sample worst of these is lower, it is compared with as many
    restarts of PGD with the model's own surrogate, so that more tries alone make no difference.
    A layer that emits spikes but is no known spiking layer keeps its surrogate: the sweep is then
    incomplete, and only a failure counts.

    Source: Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266); Xu et al. (arXiv:2209.03358).
    """
    carried = {layer.surrogate for layer in spiking_layers(context.model).values()}
    if not carried:
        return not_run(
            "the model has no known spiking layer, so no surrogate can be exchanged",
            remedy="build the network from spikeguard.neurons, or adapt it with spikeguard.foreign",
        )
    widths, factors = _WIDTHS[context.budget], _FACTORS[context.budget]
    tried = _others(carried, widths, factors)
    others = {
        name: context.attacked(context.pgd(surrogate=surrogate))
        for name, surrogate in tried.items()
    }
    once = context.attacked(context.pgd())
    lowest = context.worst([once, *others.values()])
    several, tries = once, 1
    gap = context.gap(once.right, lowest)
    if gap.above(LUCK) is not False:  # more tries alone lower it as well
        tries = 1 + len(others)
        several = context.attacked(context.pgd(restarts=tries))
        gap = context.gap(several.right, lowest)
    worst, own, failed = float(lowest.mean()), several.accuracy, gap.above(LUCK)
    strongest = min(others, key=lambda name: others[name].accuracy)
    least = others[strongest].accuracy
    if context.gap(several.right, others[strongest].right).above(LUCK) is not False:
        with_it = f"with {strongest} {percent(least)}"
        cause = _cause(context, carried, tried[strongest]) if failed else ""
    else:
        with_it = f"the worst of {1 + len(others)} surrogates for each sample {percent(worst)}"
        cause = "each surrogate finds samples that the others miss"
    missed = [] if failed else _out_of_reach(context)
    if missed:
        return not_run(
            f"incomplete: {OUT_OF_REACH.format(', '.join(missed))}",
            remedy="give it the interface of its framework, see docs/foreign.md",
        )
    return judged(
        failed=failed,
        measured=f"own surrogate {percent(own)}"
        + (f" after {tries} tries" if tries > 1 else "")
        + f", worst of {1 + len(others)} surrogates {percent(worst)}; lower by {gap}, "
        f"n = {len(context)}",
        threshold=f"worst of the surrogates lower by at most {percent(LUCK)}",
        sound="other surrogates find no more adversarial examples than as many tries with its own",
        fault=f"PGD with the model's own surrogate leaves {percent(own)}"
        + (f" in {tries} tries" if tries > 1 else "")
        + f", {with_it}: the first number is an artefact, because {cause}",
        remedy="report the per-sample worst case over surrogates (suite 'surrogates')",
        evidence={
            "own": own,
            "own_once": once.accuracy,
            "tries": tries,
            "worst": worst,
            "accuracy": {name: outcome.accuracy for name, outcome in others.items()},
            "half_width": {name: _half_width(carried, other) for name, other in tried.items()},
            "own_half_width": _half_width(carried, 1.0),
            "carried": sorted(map(str, carried)),
        },
    )


def _out_of_reach(context: Context) -> list[str]:
    """Return the layers that emit spikes and whose surrogate the sweep did not exchange."""
    with unknown_spikes(context.model) as names:
        context.logits(next(context.batches()))
    return names


def _cause(context: Context, carried: set[Surrogate], stronger: Surrogate | float) -> str:
    """Describe the fault of the model's own surrogate, from the width of a stronger one."""
    own = max(map(_spread, carried))
    wider = stronger if isinstance(stronger, float) else _spread(stronger) / own
    width = f", of half-width {next(iter(carried)).half_width:g}," if len(carried) == 1 else ""
    if wider >= _ALIKE:
        return (
            f"its own surrogate{width} is too narrow for this network's potentials"
            f"{_zero_at(context)} and hides the gradient"
        )
    if wider <= 1 / _ALIKE:
        return f"its own surrogate{width} is so wide that it misleads the attack"
    return f"the shape of its own surrogate{width} misleads the attack"


def _zero_at(context: Context) -> str:
    """Return the share of potentials at which the surrogate is zero, in words, if known."""
    try:
        dead = dead_surrogates(context)
    except ForeignError:  # the potentials of this layer cannot be recorded
        return ""
    worst = max(dead, key=lambda name: dead[name], default="")
    if not worst or not dead[worst]:
        return ""
    return f" (it is zero at {percent(dead[worst])} of them in {worst})"


def _spread(surrogate: Surrogate) -> float:
    """Return the distance from the threshold at which any surrogate falls to half its peak."""
    x = torch.linspace(0, 20, 20001)
    slope = surrogate(x)
    below = (slope <= slope[0] / 2).nonzero()
    return float(x[below[0, 0]]) if len(below) and slope[0] > 0 else float("inf")


def _half_width(carried: set[Surrogate], other: Surrogate | float) -> float | None:
    """Return the half-width of a surrogate or of the own times a factor; None: layers differ."""
    if not isinstance(other, float):
        return other.half_width
    own = {surrogate.half_width for surrogate in carried}
    return other * next(iter(own)) if len(own) == 1 else None


def _others(
    carried: set[Surrogate], widths: tuple[float, ...], factors: tuple[float, ...]
) -> dict[str, Surrogate | float]:
    """Return the surrogates to try, by name, without duplicates and without the model's own."""
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

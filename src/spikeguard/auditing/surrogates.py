"""S4: does the number survive an attacker with another surrogate?"""

from __future__ import annotations

from spikeguard.auditing.context import Attacked, Context, title
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.shares import half_width, percent
from spikeguard.neurons import Neuron, Surrogate, Triangular

__all__ = ["surrogate_sweep"]

WIDTHS = (0.5, 1.0, 2.0, 4.0)
_NARROW = 0.5  # below this half-width the model's own surrogates are widened too


def surrogate_sweep(context: Context) -> Finding:
    """The attacker's choice of surrogate does not decide the result.

    A network is handed over with the surrogate it was trained with. The attacker need not use it: PGD
    runs again with triangular surrogates of several absolute half-widths, and with the model's own made
    wider where it is narrow. A per-sample worst case below the interval of the first number means that
    the number measured the surrogate.

    Source: Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266); Xu et al., arXiv:2209.03358.
    """
    heading = title(surrogate_sweep)
    carried = {m.surrogate for m in context.model.modules() if isinstance(m, Neuron)}
    if not carried:
        return Finding(
            "S4",
            heading,
            "not run",
            "the model has no spiking layers whose surrogate could be exchanged",
            remedy="wrap a foreign network so that its neurons are SpikeGuard's",
        )
    own = context.attacked(context.pgd())
    outcomes: dict[str, Attacked] = {}
    for name, surrogate in _others(carried).items():
        outcomes[name] = context.attacked(context.pgd(surrogate=surrogate))
    worst = float(context.worst([own, *outcomes.values()]).mean())
    room = max(0.01, half_width(own.accuracy, len(context)))
    failed = worst < own.accuracy - room
    strongest = min(outcomes, key=lambda name: outcomes[name].accuracy)
    lowest = outcomes[strongest].accuracy
    meaning = ""
    if failed:
        meaning = (
            f"with its own surrogate {percent(own.accuracy)} of the samples look robust, with "
            f"{strongest} it is {percent(lowest)} and in the worst case {percent(worst)}: the number is "
            "an artefact of the attacker's gradient"
        )
    return Finding(
        "S4",
        heading,
        "fail" if failed else "pass",
        f"own surrogate {percent(own.accuracy)}, worst of {1 + len(outcomes)} {percent(worst)}",
        f"worst case >= own - {percent(room)}",
        meaning,
        "report the per-sample worst case over surrogates (suite 'surrogates')" if failed else "",
        {
            "own": own.accuracy,
            "worst": worst,
            "accuracy": {name: outcome.accuracy for name, outcome in outcomes.items()},
            "own_surrogates": sorted(map(str, carried)),
        },
    )


def _others(carried: set[Surrogate]) -> dict[str, Surrogate | float]:
    """Return the surrogates to try, by name; never the one that every layer carries."""
    others: dict[str, Surrogate | float] = {
        f"a surrogate of half-width {width:g}": Triangular(width)
        for width in WIDTHS
        if carried != {Triangular(width)}
    }
    if min(surrogate.half_width for surrogate in carried) < _NARROW:
        others |= {f"its own widened {factor:g} times": factor for factor in (2.0, 4.0)}
    return others

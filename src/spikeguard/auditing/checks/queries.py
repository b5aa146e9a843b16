"""G2: does the white-box attack beat one that asks for no gradient?"""

from __future__ import annotations

from spikeguard.auditing.check import judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.tolerances import (LUCK, exceeds, fooled_alone, half_width, percent)

__all__ = ["gradients_beat_queries"]

_ALWAYS = 0.002  # accuracies nearer than this are equal


def gradients_beat_queries(context: Context) -> Finding:
    """An attack without gradients finds nothing that the gradient attacks miss.

    Square asks for logits only, so no surrogate can mislead it (under L1, APGD with differences of
    the loss for a gradient: NES). Where it wins, the gradients are hidden: for spiking networks the
    most telling single sign.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); Croce and Hein, 2020 (AutoAttack's
    flag); Andriushchenko et al., ECCV 2020 (arXiv:1912.00049).
    """
    n, (name, attack) = len(context), context.blind()
    guided = context.worst(context.white())
    blind = context.attacked(attack)
    own = float(guided.mean())
    only = fooled_alone(blind.right, guided)
    room = max(_ALWAYS, half_width(blind.accuracy, n))
    return judged(
        "G2",
        gradients_beat_queries,
        failed=own > blind.accuracy + room or exceeds(only, n, LUCK),
        measured=f"{name} leaves {percent(blind.accuracy)}, the gradient "
        f"attacks {percent(own)}; {only} of {n} fooled by {name} alone",
        threshold=f"gradients <= {name} + {100 * room:.1f} points, and fooled by {name} alone: not "
        f"above {percent(LUCK)}",
        sound="following the gradient beats searching without one",
        fault=f"an attack that sees no gradient leaves {percent(blind.accuracy)} where the "
        f"gradient attacks leave {percent(own)}, so the gradients are hidden",
        remedy=f"believe the lower number; attack with other surrogates and with {name}",
        evidence={"white": own, "black": blind.accuracy, "black_only": only},
    )

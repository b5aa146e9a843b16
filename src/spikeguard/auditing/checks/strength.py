"""Is PGD stronger than a single step and than random noise? Checks G1, G4."""

from __future__ import annotations

import torch

from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.tolerances import LUCK, fooled_alone, percent, worst_of

__all__ = ["iterative_beats_single_step", "noise_is_weaker"]


def iterative_beats_single_step(context: Context) -> CheckOutcome:
    """PGD is at least as strong as a single step.

    FGSM is one step of PGD: if it is stronger, gradients at later steps mislead PGD. An exact
    gradient leaves under 1 % of exceptions. A surrogate is not exact, and sound spiking networks
    show up to 6 %, so 12 % are allowed.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); Carlini et al., 2019
    (arXiv:1902.06705).
    """
    single, several = (context.attacked(attack) for attack in (context.fgsm(), context.pgd()))
    n, stray = len(context), fooled_alone(single.right, several.right)
    alone, gap = context.share(stray), context.gap(several.right, single.right)
    return judged(
        failed=worst_of(alone.above(LUCK), gap.above(LUCK)),
        measured=f"PGD-{context.steps} leaves {percent(several.accuracy)}, FGSM "
        f"{percent(single.accuracy)}; {stray} of {n} fooled by FGSM alone, {alone}",
        threshold=f"fooled by FGSM alone, and PGD above FGSM: by at most {percent(LUCK)}",
        sound="more steps make the attack stronger",
        fault=f"a single step fools samples that {context.steps} steps leave correct, so the "
        "gradients mislead the attack",
        remedy="use other surrogates, several step sizes and restarts, and a gradient-free attack",
        evidence={
            "fgsm": single.accuracy,
            "pgd": several.accuracy,
            "fgsm_only": stray,
            "pgd_only": fooled_alone(several.right, single.right),
        },
    )


def noise_is_weaker(context: Context) -> CheckOutcome:
    """Random noise fools no sample that gradient attacks do not.

    The worst of ten random points of the threat set is compared with FGSM and PGD together. An
    exact gradient leaves no exception. A surrogate is not exact, and networks with many samples
    near the boundary show up to 6 %, so 12 % are allowed.

    Source: Carlini et al., 2019 (arXiv:1902.06705); Athalye, Carlini and Wagner, 2018
    (arXiv:1802.00420).
    """
    noise, single, several = (
        context.attacked(attack) for attack in (context.noise(), context.fgsm(), context.pgd())
    )
    n, guided = len(context), torch.minimum(single.right, several.right)
    only = fooled_alone(noise.right, guided)
    alone = context.share(only)
    return judged(
        failed=alone.above(LUCK),
        measured=f"noise leaves {percent(noise.accuracy)}; {only} of {n} fooled by noise alone, "
        f"{alone}",
        threshold=f"fooled by noise alone: at most {percent(LUCK)}",
        sound="following the gradient is stronger than random points",
        fault="ten random points fool samples that the gradient attacks leave correct",
        remedy="look for a gradient with the wrong sign; attack with other surrogates",
        evidence={"noise": noise.accuracy, "noise_only": only},
    )

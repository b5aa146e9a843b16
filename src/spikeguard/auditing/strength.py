"""G1, G4, G5: does the attack behave like an attack that works?"""

from __future__ import annotations

import math

import torch

from spikeguard.auditing.context import Context, title
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.shares import exceeds, half_width, percent

__all__ = ["iterative_beats_single_step", "noise_is_weaker", "unbounded_attack_succeeds"]

_STRAY = 0.05  # samples on which a single step may be luckier than PGD
_LUCK = 0.01  # samples on which noise may be luckier, and that may survive an unbounded attack


def iterative_beats_single_step(context: Context) -> Finding:
    """PGD is at least as strong as a single step.

    FGSM is one step of PGD: where it wins, PGD is led astray by the gradients it meets on the way. An
    exact gradient leaves under 1 % of exceptions; a surrogate is not exact, and on sound spiking
    networks 1 to 4 % are seen, so that 5 % are allowed.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); Carlini et al., 2019 (arXiv:1902.06705).
    """
    single, several = (context.attacked(attack) for attack in (context.fgsm(), context.pgd()))
    n, room = len(context), half_width(single.accuracy, len(context))
    stray = int((several.right - single.right > 0.5).sum())
    weaker = several.accuracy > single.accuracy + room
    failed = weaker or exceeds(stray, n, _STRAY)
    measured = (
        f"PGD-{context.steps} leaves {percent(several.accuracy)}, FGSM {percent(single.accuracy)}; "
        f"{stray} fooled by FGSM only"
    )
    return Finding(
        "G1",
        title(iterative_beats_single_step),
        "fail" if failed else "pass",
        measured,
        f"PGD <= FGSM + {percent(room)}, and fooled by FGSM only: not above {percent(_STRAY)}",
        f"one gradient step fools more than {context.steps} do, which only happens when the gradients "
        "mislead the attack"
        if failed
        else "",
        "use several step sizes, restarts and surrogates, and a gradient-free attack"
        if failed
        else "",
        {
            "fgsm": single.accuracy,
            "pgd": several.accuracy,
            "fgsm_only": stray,
            "pgd_only": int((single.right - several.right > 0.5).sum()),
        },
    )


def noise_is_weaker(context: Context) -> Finding:
    """Random noise fools no sample that PGD does not.

    Source: Carlini et al., 2019 (arXiv:1902.06705); Athalye, Carlini and Wagner, 2018.
    """
    noise, pgd = (context.attacked(attack) for attack in (context.noise(), context.pgd()))
    only = int((pgd.right - noise.right > 0.5).sum())
    failed = exceeds(only, len(context), _LUCK)
    return Finding(
        "G4",
        title(noise_is_weaker),
        "fail" if failed else "pass",
        f"noise leaves {percent(noise.accuracy)}; {only} fooled by noise only",
        f"fooled by noise only: not above {percent(_LUCK)}",
        "ten random points fool samples that the gradient attack calls robust" if failed else "",
        "look for a gradient that points the wrong way, and attack with other surrogates"
        if failed
        else "",
        {"noise": noise.accuracy, "pgd": pgd.accuracy, "noise_only": only},
    )


def unbounded_attack_succeeds(context: Context) -> Finding:
    """Accuracy falls to 0 as eps grows.

    With eps 1 the attack may paint any image, with eps 0.5 it may paint them all grey: what is still
    right then was not attacked. These two start from the clean image, where hidden gradients hide. In
    between accuracy must not rise with eps. For an L2 threat both radii are multiplied by sqrt(d).

    Source: Carlini et al., 2019 (arXiv:1902.06705); Athalye, Carlini and Wagner, 2018; Pintor et al.,
    2022 (arXiv:2106.09947).
    """
    n, eps = len(context), context.threat.eps
    reach = math.sqrt(context.x[0].numel()) if context.threat.norm == "l2" else 1.0
    near = {e: context.attacked(context.pgd(eps=e)).accuracy for e in (eps / 2, eps, 2 * eps)}
    far = {
        e: context.attacked(context.pgd(eps=e, random_start=False)).accuracy
        for e in (reach / 2, reach)
    }
    grey, whole = far.values()
    curve = sorted(({e: a for e, a in near.items() if e < reach / 2} | far).items())
    chance = 1 / _classes(context)
    rises = [
        (low, high)
        for (low, before), (high, after) in zip(curve, curve[1:], strict=False)
        if after > before + half_width(before, n)
    ]
    reasons = []
    if exceeds(whole * n, n, _LUCK):
        reasons.append(
            f"{percent(whole)} of the images withstand an attack that may change every pixel at will"
        )
    if exceeds(grey * n, n, chance):
        reasons.append(f"{percent(grey)} withstand an attack that may turn every image grey")
    if rises:
        reasons.append(f"accuracy rises from eps {rises[0][0]:.4g} to {rises[0][1]:.4g}")
    return Finding(
        "G5",
        title(unbounded_attack_succeeds),
        "fail" if reasons else "pass",
        ", ".join(f"{percent(accuracy)} at eps {e:.4g}" for e, accuracy in curve),
        f"eps {reach:.4g}: not above {percent(_LUCK)}; eps {reach / 2:.4g}: not above chance, "
        f"{percent(chance)}; never rising",
        f"{reasons[0]}: the attack fails for another reason than robustness" if reasons else "",
        "repair the attack before believing it: wider surrogates, more steps, another loss"
        if reasons
        else "",
        {
            "curve": [[e, accuracy] for e, accuracy in curve],
            "chance": chance,
            "rises": [list(pair) for pair in rises],
        },
    )


def _classes(context: Context) -> int:
    return context.logits(torch.arange(min(2, len(context)))).shape[1]

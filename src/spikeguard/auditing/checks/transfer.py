"""Do attacks on other models find more, and do they break an undefended model? Checks G3, G25."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.spiking_rules import prescribable
from spikeguard.attacks.searches.pgd import PGD
from spikeguard.auditing.check import CheckOutcome, judged, not_run
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.substitute import distilled
from spikeguard.auditing.tolerances import LUCK, fooled_alone, percent, worst_of

__all__ = ["breaks_the_undefended", "transfer_is_weaker"]

_STEPS = 20


def transfer_is_weaker(context: Context) -> CheckOutcome:
    """Attacks made on other models are no stronger than those on the model itself.

    The sources are the substitutes passed to the audit, a small network trained on the model's
    predictions on and around the samples and, for a spiking network, its twin without spikes.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); Carlini et al., 2019
    (arXiv:1902.06705); Papernot et al., 2017 (arXiv:1602.02697), for the substitute.
    """
    n, guided = len(context), context.worst(context.white())
    right = {name: transferred(context, source) for name, source in _sources(context).items()}
    if prescribable(context.model, context.x[: context.batch_size]):
        right["its twin without spikes"] = context.attacked(context.pgd(gradient=ANNTwin())).right
    own = float(guided.mean())
    accuracy = {name: float(each.mean()) for name, each in right.items()}
    alone = {name: fooled_alone(each, guided) for name, each in right.items()}
    best = min(accuracy, key=lambda name: accuracy[name])
    most = max(alone, key=lambda name: alone[name])
    only = context.share(alone[most])
    higher = (context.gap(guided, each).above(LUCK) for each in right.values())
    return judged(
        failed=worst_of(only.above(LUCK), *higher),
        measured=f"gradient attacks leave {percent(own)}; made on "
        + ", ".join(f"{name} {percent(a)}" for name, a in accuracy.items())
        + f"; {alone[most]} of {n} fooled by transfer from {most} alone, {only}",
        threshold=f"gradients above transfer, fooled by transfer alone: at most {percent(LUCK)}",
        sound="access to the model makes the attack stronger",
        fault=f"adversarial inputs made on {best} leave {percent(accuracy[best])} where attacks on "
        f"the model itself leave {percent(own)}: another model's gradient is the better one",
        remedy="the gradients are hidden: attack with other surrogates, and report transfer too",
        evidence={"white": own, "transfer": accuracy, "transfer_only": alone},
    )


def breaks_the_undefended(context: Context) -> CheckOutcome:
    """The same attack breaks a model that has no defence.

    An attack that is too weak for a plainly trained model gives no information on a defended one.

    Source: Carlini et al., 2019 (arXiv:1902.06705).
    """
    if context.undefended is None:
        return not_run(
            "no plainly trained model was passed",
            remedy="pass one: audit(..., undefended=model)",
        )
    twin = Context(
        *(context.undefended, context.x, context.y, context.threat),
        seed=context.seed,
        steps=context.steps,
        batch_size=context.batch_size,
        budget=context.budget,
        attack=context.attack,
    )
    n, chance = len(context), 1 / twin.classes
    left = twin.attacked(twin.reference()).accuracy
    some = context.share(left * n)
    return judged(
        failed=some.above(chance + LUCK),
        measured=f"{some} accuracy is left on the undefended model, n = {n}",
        threshold=f"at most chance, {percent(chance)}, and {percent(LUCK)} more",
        sound="the attack is strong enough for a model without a defence",
        fault=f"the attack leaves {percent(left)} on a model without any defence, so the accuracy "
        "left on this one is no evidence of a defence",
        remedy="more steps, other losses and surrogates, or a larger eps",
        evidence={"undefended": left},
    )


def transferred(context: Context, source: nn.Module) -> Tensor:
    """Return the share of draws on which inputs made on another model stay correct [N]."""
    attack, parts = PGD(context.threat, steps=_STEPS), []
    device = next((p.device for p in source.parameters()), torch.device("cpu"))
    for index in context.batches():
        x, y = context.x[index].to(device), context.y[index].to(device)
        parts.append(attack(source, x, y, generator=context.draws(index, "transfer")).cpu())
    right = context.scored(torch.cat(parts), "transfer")
    return right if context.stochastic else torch.minimum(right, context.clean)


def _sources(context: Context) -> Mapping[str, nn.Module]:
    own = {"a network that learned its answers": distilled(context)}
    return {**context.substitutes, **own}

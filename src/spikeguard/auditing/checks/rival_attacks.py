"""Do attacks of another kind find more than the reported attack? Checks G2, S5, S14, S15, S16."""

from __future__ import annotations

from dataclasses import replace

from spikeguard.attacks.base import Attack
from spikeguard.attacks.event_suites import event_search
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import Backprop, EoT, Gradient
from spikeguard.attacks.gradients.spiking_rules import prescribable
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged, not_run
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.measurements.attack_variants import RULES, decision, far, with_gradient
from spikeguard.auditing.tolerances import LUCK, fooled_alone, percent, worst_of
from spikeguard.neurons.modes import spiking_layers
from spikeguard.neurons.surrogate import SURROGATES

__all__ = [
    "black_box_is_weaker",
    "eps_half_gives_chance_for_every_surrogate",
    "rules_are_weaker",
    "twin_is_weaker",
    "gradients_beat_queries",
]


_PAIR = "SA-PGD with ASSG"
_NO_NEURON = "the model has no spiking layer whose derivative could be replaced"
_FOREIGN = "spiking layers of another framework whose potentials cannot be recorded"


def rules_are_weaker(context: Context) -> CheckOutcome:
    """Gradient rules for spiking networks find no more than the network's own gradient.

    SA-PGD with ASSG, combined as in its paper, is compared with the per-sample worst of the
    gradient attacks on the same samples. In the full budget the reported attack also runs with
    BPTR, RGA, HART (half-width 1), ASSG and PDSG instead of its own gradient, from the same starts;
    with ASSG alone if the recurrence of a foreign model's layers is not known. All of them count
    in the audit's upper bound. If SA-PGD with ASSG is the strongest and the check fails, SA-PGD
    with the network's own gradient shows whether gradient or search makes the difference.

    Source: arXiv:2512.22522, 2025; Ding et al., 2022; Bu et al., CVPR 2023; Hao et al., ICLR 2024;
    Lun et al., CVPR 2025 (arXiv:2503.03272).
    """
    if not spiking_layers(context.model):
        return does_not_apply(_NO_NEURON)
    rivals: dict[str, Attack] = {_PAIR: _stable(context, ASSG())}
    if context.budget == "full":
        rules = RULES if _spikes(context) else {"ASSG": ASSG()}  # the only rule for foreign layers
        rivals |= {name: with_gradient(context, rule) for name, rule in rules.items()}
    others = {name: context.attacked(attack) for name, attack in rivals.items()}
    guided, n = context.worst(context.white(own=True)), len(context)
    own = float(guided.mean())
    left = {name: other.accuracy for name, other in others.items()}
    best = min(left, key=lambda name: left[name])
    alone = fooled_alone(others[best].right, guided)
    gap, only = context.gap(guided, others[best].right), context.share(alone)
    failed = worst_of(gap.above(LUCK), only.above(LUCK))
    searched = ""
    if failed and best == _PAIR:
        same = context.attacked(_stable(context, Backprop())).accuracy
        searched = f", and SA-PGD with the own gradient {percent(same)}"
    return judged(
        failed=failed,
        measured=f"own gradient {percent(own)}; "
        + ", ".join(f"{name} {percent(accuracy)}" for name, accuracy in left.items())
        + f"; {alone} of {n} fooled by {best} alone, {only}",
        threshold=f"each lower, and fooled by it alone: at most {percent(LUCK)}",
        sound="no gradient rule of the literature finds clearly more adversarial examples",
        fault=f"{best} leaves {percent(left[best])} where the attacks with the network's own "
        f"gradient leave {percent(own)}{searched}: a number measured with that gradient alone is "
        "too high",
        remedy=f"report the worst case that includes {best} (suite 'snn')",
        evidence={"own": own, "accuracy": left, "alone": alone},
    )


def twin_is_weaker(context: Context) -> CheckOutcome:
    """Transfer from the twin without spikes is weaker than the attack on the network itself.

    The twin has the network's weights and staircase activations instead of spiking neurons. Its
    gradient is that of another function: if it is the stronger one, the network's own gradient is
    hidden.

    Source: Bu et al., CVPR 2023; Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266).
    """
    if not _spikes(context):
        return _no_rule(context)
    twin = with_gradient(context, ANNTwin())
    return _compared(context, {"the twin": twin})


def black_box_is_weaker(context: Context) -> CheckOutcome:
    """A gradient-free attack finds less than gradient attacks.

    Two searches are compared with the per-sample worst of the gradient attacks on the same samples:
    Square, which also accepts changes that leave the loss equal (rates are multiples of 1/T, and
    most changes do not alter them), and in the full budget Square on the decision alone, a random
    walk that uses only whether the sample is correct. Under L1 the search is APGD with differences
    of the loss (NES). A surrogate is not exact, so they may fool up to 12 % of the samples alone.

    Source: Croce and Hein, 2020; Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420).
    """
    name, attack = context.blind()
    searches = {name: attack}
    if context.budget == "full" and isinstance(attack, Square):
        searches["Square on decisions"] = replace(attack, loss=decision)
    return _compared(context, searches)


def eps_half_gives_chance_for_every_surrogate(context: Context) -> CheckOutcome:
    """With eps 1/2 the attack leaves no more than chance, whatever the surrogate.

    With eps 1/2 every image can be turned grey. PGD starts at the clean image and takes long steps,
    with one surrogate of every family at its default width and with the model's own.

    Source: Carlini et al., 2019 (arXiv:1902.06705); Özdenizci and Legenstein, TMLR 2024
    (arXiv:2311.09266).
    """
    if not spiking_layers(context.model):
        return does_not_apply(_NO_NEURON)
    if context.threat.norm not in ("linf", "l2"):
        return not_run(
            f"a few steps of PGD do not cross a ball of {context.threat.norm}",
            remedy="audit with an Linf or L2 threat too",
        )
    grey, n, chance = context.reach / 2, len(context), 1 / context.classes
    left = {"own": far(context, grey)}
    left |= {name: far(context, grey, kind()) for name, kind in SURROGATES.items()}
    high = {name: context.share(a * n).above(chance + LUCK) for name, a in left.items()}
    above = [name for name, answer in high.items() if answer]
    return judged(
        failed=worst_of(*high.values()),
        measured=", ".join(f"{name} {percent(accuracy)}" for name, accuracy in left.items()),
        threshold=f"none above chance ({percent(chance)}) by {percent(LUCK)} at eps {grey:.4g}",
        sound="with a large eps every surrogate leads the attack to success",
        fault=f"with {', '.join(above)} an attack that can turn every image grey leaves more than "
        "chance: a gradient that misleads there misleads at small eps as well",
        remedy="exclude these surrogates from the worst case, and do not attack with them alone",
        evidence={"accuracy": left, "above": above, "chance": chance},
    )


def _compared(context: Context, attacks: dict[str, Attack]) -> CheckOutcome:
    """Compare other attacks with the per-sample worst of the network's own gradient attacks."""
    guided, n = context.worst(context.white(own=True)), len(context)
    best = float(guided.mean())
    left, only, gaps = {}, {}, {}
    for name, attack in attacks.items():
        other = context.attacked(attack)
        left[name], only[name] = other.accuracy, fooled_alone(other.right, guided)
        gaps[name] = context.gap(guided, other.right)
    most = max(only, key=lambda name: only[name])
    alone = context.share(only[most])
    return judged(
        failed=worst_of(alone.above(LUCK), *(gap.above(LUCK) for gap in gaps.values())),
        measured=f"the own gradient leaves {percent(best)}; "
        + ", ".join(f"{name} {percent(accuracy)}" for name, accuracy in left.items())
        + f"; {only[most]} of {n} fooled by {most} alone, {alone}",
        threshold=f"own gradient above another, and fooled by it alone: at most {percent(LUCK)}",
        sound="the network's own gradient finds more",
        fault=f"{most} fools samples that the network's own gradient leaves correct "
        f"({only[most]} of {n}), so that gradient is hidden or wrong",
        remedy="look for the dead or detached layer (S7, S12), attack with other surrogates, and "
        f"report the worst case that includes {most}",
        evidence={"accuracy": left, "gradient": best, "only": only},
    )


def _stable(context: Context, gradient: Gradient) -> Attack:
    """Return SA-PGD with a gradient, or a search on events.

    It takes half the steps in the quick budget of a noisy model.
    """
    steps = context.pick(full=100, quick=50 if context.stochastic else 100)
    averaged = EoT(EOT, gradient) if context.stochastic else gradient
    if context.on_events:
        return event_search(context.threat, steps, averaged)
    return SAPGD(context.threat, steps=steps, gradient=averaged)


def _no_rule(context: Context) -> CheckOutcome:
    """Return why no twin exists: no layer spikes, or the recurrence of the layers is unknown."""
    if spiking_layers(context.model):
        remedy = "use layers whose recurrence is known (docs/foreign.md), or spikeguard.models"
        return not_run(_FOREIGN, remedy=remedy)
    return does_not_apply(_NO_NEURON)


def _spikes(context: Context) -> bool:
    return prescribable(context.model, context.x[: context.batch_size])


def gradients_beat_queries(context: Context) -> CheckOutcome:
    """An attack without gradients finds nothing that the gradient attacks miss.

    Square uses logits only, so no surrogate can mislead it (under L1, APGD with differences of the
    loss as its gradient: NES). If it is the stronger one, the gradients are hidden; for spiking
    networks this is the strongest single sign.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); Croce and Hein, 2020 (AutoAttack's
    flag); Andriushchenko et al., ECCV 2020 (arXiv:1912.00049).
    """
    n, (name, attack) = len(context), context.blind()
    guided = context.worst(context.white())
    blind = context.attacked(attack)
    own = float(guided.mean())
    only = fooled_alone(blind.right, guided)
    alone, gap = context.share(only), context.gap(guided, blind.right)
    return judged(
        failed=worst_of(alone.above(LUCK), gap.above(LUCK)),
        measured=f"{name} leaves {percent(blind.accuracy)}, the gradient "
        f"attacks {percent(own)}; {only} of {n} fooled by {name} alone, {alone}",
        threshold=f"gradients above {name}, and fooled by {name} alone: at most {percent(LUCK)}",
        sound="gradient attacks are stronger than a search without gradients",
        fault=f"an attack without gradients leaves {percent(blind.accuracy)} where the "
        f"gradient attacks leave {percent(own)}, so the gradients are hidden",
        remedy=f"report the lower number; attack with other surrogates and with {name}",
        evidence={"white": own, "black": blind.accuracy, "black_only": only},
    )

"""G24, S18, S19, S21, S22: does what was recorded agree with what was attacked?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from spikeguard.attacks import (AttackError, NoGradientError, ThreatViolation, cross_entropy, describe)
from spikeguard.attacks.suites import suite
from spikeguard.auditing.check import (does_not_apply, judged, not_run, reason)
from spikeguard.auditing.context import Context
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.checks.rival_attacks import RULES
from spikeguard.auditing.tolerances import (exceeds, half_width, percent)
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.neurons import (record, spiking_layers)
from spikeguard.rng import key

__all__ = [
    "counted_on_the_model",
    "finite_under_attack",
    "settings_are_accounted_for",
    "surrogate_is_the_trained_one",
    "valid_events",
]

_OTHER = 0.01  # rounding: a spike at the very threshold may flip in another batch


def counted_on_the_model(context: Context) -> Finding:
    """Every attack counts by what the audited model says about its inputs.

    An input made on a substitute, on a twin or by a search that stops early is an adversarial
    example only where the model itself is wrong. All inputs that the audit recorded are scored
    again: a record that says otherwise was taken elsewhere.

    Source: Pintor et al., 2022 (arXiv:2106.09947), failures of transfer.
    """
    context.attacked(context.pgd())
    wrong: dict[str, float] = {}
    for attack, outcome in context.made.items():
        again = evaluate(
            context.model,
            (outcome.x_adv, context.y),
            {},
            seed=key(context.seed, "audit", "rescored"),
            batch_size=context.batch_size,
        ).outcomes["clean"]
        n = len(context)
        if context.stochastic:
            gap = abs(float(again.mean()) - outcome.accuracy)
            off = gap > half_width(outcome.accuracy, n)
        else:
            gap = float((again != outcome.right).double().mean())
            off = exceeds(gap * n, n, _OTHER)
        if off:
            wrong[str(describe(attack))] = gap
    return judged(
        "G24",
        counted_on_the_model,
        failed=bool(wrong),
        measured=f"{len(context.made) - len(wrong)} of {len(context.made)} attacks count as scored "
        "again",
        threshold=f"not above {percent(_OTHER)} of the samples differ",
        sound="transferred inputs count only where they fool the model itself",
        fault=f"for {len(wrong)} attacks the record is not what the model says: success was "
        "counted on another model",
        remedy="score every adversarial input on the audited model, and only there",
        evidence={"wrong": wrong},
    )


def finite_under_attack(context: Context) -> Finding:
    """Nothing is NaN or infinite where the attacks have led.

    Adversarial inputs of all attacks made, and the logits, potentials and input gradients there,
    are counted element by element. A threshold swallows a NaN: the spike is missing, the logits
    look sound and the sample may count as fooled, so that inputs and potentials themselves are
    looked at. G27 looks at the clean samples.

    Source: SpikeGuard's own.
    """
    stopped = ""
    try:
        context.attacked(context.pgd())
    except NoGradientError:  # G15 and G16 say so
        raise
    except (AttackError, ThreatViolation) as error:
        stopped = reason(error)
    bad = dict.fromkeys(("inputs", "potentials", "logits", "gradients"), 0)
    for outcome in list(context.made.values()):
        bad["inputs"] += _broken(outcome.x_adv)
        for index in context.batches():
            for name, number in _broken_at(context, outcome.x_adv[index], index).items():
                bad[name] += number
    found = {name: number for name, number in bad.items() if number}
    said = ", ".join(f"{number} {name}" for name, number in found.items()) or stopped
    return judged(
        "S18",
        finite_under_attack,
        failed=bool(said),
        measured=said or f"none in the inputs of {len(context.made)} attacks and what they cause",
        threshold="none",
        sound="the attacks led nowhere that numbers end",
        fault=f"numbers end under attack ({said}): a NaN below the threshold looks like silence, "
        "and the scores mean nothing",
        remedy="find the division by zero or the overflow (attack's momentum, batch norm, weights)",
        evidence={**bad, "stopped": stopped},
    )


def valid_events(context: Context) -> Finding:
    """Adversarial events are events.

    For a threat on events (one with ``events = True``): counts stay whole numbers >= 0, binary
    grids stay binary, shape and time bins stay, and no more cells change than the budget allows.

    Source: Büchel et al., 2022 (arXiv:2110.02929); the conditions are SpikeGuard's own.
    """
    if not getattr(context.threat, "events", False):
        return does_not_apply("S19", valid_events, "the threat is on images, not on events")
    context.attacked(context.pgd())
    x = context.x
    binary = bool(((x == 0) | (x == 1)).all())
    faults: dict[str, int] = {}
    for outcome in context.made.values():
        x_adv = outcome.x_adv
        if x_adv.shape != x.shape:
            faults["another shape"] = len(x)
            continue
        whole = (x_adv >= 0) & (x_adv == x_adv.round())
        whole &= (x_adv <= 1) if binary else torch.ones_like(whole)
        changed = (x_adv != x).flatten(1).sum(1)
        counts = {
            "cells that are no events": int((~whole).sum()),
            "samples over budget": int((changed > context.threat.eps).sum()),
        }
        for name, number in counts.items():
            faults[name] = faults.get(name, 0) + number
    found = {name: number for name, number in faults.items() if number}
    said = ", ".join(f"{number} {name}" for name, number in found.items())
    return judged(
        "S19",
        valid_events,
        failed=bool(found),
        measured=said or f"{len(context.made)} attacks made events only",
        threshold=f"whole numbers >= 0, and at most {context.threat.eps:g} cells changed",
        sound="a sensor could have sent what the attack made",
        fault=f"the attack made inputs that are no events ({said})",
        remedy="round and project inside the attack, not after it",
        evidence=faults,
    )


def settings_are_accounted_for(context: Context) -> Finding:
    """The settings of adaptive attacks are the usual ones, or it is said where they come from.

    HART's width, ASSG's bound and the like are chosen by search in their papers, some on the test
    set. The gradients of all attacks made are compared with the settings that SpikeGuard fixes
    beforehand, here and in the suite "snn": others must come with the split they were chosen on
    and the number of trials (``audit(tuned=Provenance("validation", trials=12))``), and that split
    must not be the test set.

    Source: SpikeGuard's own, after the released scripts of HART and ASSG.
    """
    kinds = tuple(type(rule) for rule in RULES.values())
    battery = suite("snn", eps=context.threat.eps, norm=context.threat.norm)
    fixed = {*RULES.values(), *(part for attack in battery.values() for part in _parts(attack))}
    used = {part for attack in context.made for part in _parts(attack) if isinstance(part, kinds)}
    chosen = sorted(str(part) for part in used - fixed)
    split, trials = context.tuned.split, context.tuned.trials
    unexplained = chosen if split == "fixed" else []
    on_test = bool(chosen) and "test" in split.lower()
    return judged(
        "S21",
        settings_are_accounted_for,
        failed=bool(unexplained) or on_test,
        measured=f"{len(used)} adaptive gradients used, {len(chosen)} with settings of their own; "
        f"split {split!r}, {trials} trials",
        threshold="settings fixed beforehand, or chosen on a split that is not the test set",
        sound="no setting was chosen on the samples that are scored",
        fault="settings were chosen on the test set: the least of several accuracies there is "
        "lower than the attack is"
        if on_test
        else f"{', '.join(unexplained[:2])}: nobody says where these settings come from",
        remedy="choose them with tune() on validation data, and pass "
        "tuned=Provenance('validation', trials=...)",
        evidence={"used": sorted(map(str, used)), "chosen": chosen, "trials": trials},
    )


def surrogate_is_the_trained_one(context: Context) -> Finding:
    """The attacker is handed the surrogate that the network was trained with.

    A surrogate that is narrowed after training hides the gradient from every attack that trusts
    it. What the layers carry now is compared with what ``audit(trained_with=...)`` says, one
    surrogate or one for each layer's name; a run says it by itself, from its recipe.

    Source: SpikeGuard's own, after Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266).
    """
    carried = {name: str(layer.surrogate) for name, layer in spiking_layers(context.model).items()}
    if not carried:
        return does_not_apply(
            "S22", surrogate_is_the_trained_one, "the model has no spiking layer of SpikeGuard's"
        )
    said = context.trained_with
    names = ", ".join(sorted(set(carried.values())))
    if said is None:
        return not_run(
            "S22",
            surrogate_is_the_trained_one,
            f"the attacker is handed {names}; what the network was trained with is unknown",
            remedy="say it: audit(trained_with=surrogate)",
        )
    trained = {n: str(said.get(n)) for n in carried} if isinstance(said, Mapping) else {}
    trained = trained or dict.fromkeys(carried, str(said))
    other = [name for name in carried if carried[name] != trained[name]]
    return judged(
        "S22",
        surrogate_is_the_trained_one,
        failed=bool(other),
        measured=f"attacker {names}; training {', '.join(sorted(set(trained.values())))}",
        threshold="the same in every layer",
        sound="the attacker starts from the gradient that training used",
        fault=f"{', '.join(other[:3])} was trained with {trained[other[0]]} and is attacked with "
        f"{carried[other[0]]}"
        if other
        else "",
        remedy="attack with the surrogate of training first, then with others; report both",
        evidence={"carried": carried, "trained": trained},
    )


def _parts(part: object) -> Iterator[object]:
    """Yield an attack and everything in its fields, however deep."""
    yield part
    if is_dataclass(part):
        for field in fields(part):
            yield from _parts(getattr(part, field.name))


def _broken(tensor: Tensor) -> int:
    return int((~torch.isfinite(tensor)).sum())


def _broken_at(context: Context, x_adv: Tensor, index: Tensor) -> dict[str, int]:
    """Count what is not finite in what some inputs cause."""
    with context.searching(index) as (_, y), torch.enable_grad(), record(context.model) as trace:
        x = x_adv.to(context.device).detach().clone().requires_grad_()
        logits = context.model(x)
        loss = cross_entropy(logits, y).sum()
        grad = None
        if loss.requires_grad:
            (grad,) = torch.autograd.grad(loss, x, allow_unused=True)
    return {
        "potentials": sum(_broken(layer.v) for layer in trace.values()),
        "logits": _broken(logits),
        "gradients": 0 if grad is None else _broken(grad),
    }

"""Where do the settings of the attack come from? Checks G32, S21, S22."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from spikeguard.attacks.suites import suite
from spikeguard.attacks.threat_names import norm_of
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged, not_run
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.attack_variants import RULES
from spikeguard.neurons.modes import spiking_layers

__all__ = [
    "nothing_was_tuned_on_the_test",
    "settings_are_accounted_for",
    "surrogate_is_the_trained_one",
]


def nothing_was_tuned_on_the_test(context: Context) -> CheckOutcome:
    """The settings of the reported attack were not chosen on the samples it is reported on.

    The lowest of several accuracies on the same samples is lower than that of the chosen attack on
    other samples. Decided by ``audit(tuned=...)``; by default the settings are fixed in advance.

    Source: the practice of gradient rules with a parameter, HART (arXiv:2512.22522) and others.
    """
    tuned = context.tuned
    failed = _is_test(tuned.split)
    how = "fixed in advance"
    if tuned.split != "fixed":
        how = f"the best of {tuned.trials} on the {tuned.split} split"
    return judged(
        failed=failed,
        measured=f"settings {how}",
        threshold="fixed, or chosen on a split that is not the test set",
        sound="the number belongs to one attack, not to the best of many",
        fault=f"the attack is the best of {tuned.trials} on the same samples it is reported on",
        remedy="choose on validation data (spikeguard.attacks.tune) and state the trials",
        evidence={"split": tuned.split, "trials": tuned.trials},
    )


def settings_are_accounted_for(context: Context) -> CheckOutcome:
    """Adaptive attacks use the standard settings, or the origin of their settings is stated.

    Papers choose settings such as HART's width and ASSG's bound by search, some on the test set.
    The gradients of all attacks made are compared with the settings that SpikeGuard fixes in
    advance, here and in the suite "snn-cascade". Other settings need the split they were chosen on
    and the number of trials (``audit(tuned=Provenance("validation", trials=12))``), and that split
    must not be the test set.

    Source: SpikeGuard's own, after the released scripts of HART and ASSG.
    """
    kinds = tuple(type(rule) for rule in RULES.values())
    fitting = "events" if getattr(context.threat, "events", False) else "snn-cascade"
    standard = suite(fitting, eps=context.threat.eps, norm=norm_of(context.threat))
    fixed = {*RULES.values(), *(part for attack in standard.values() for part in _parts(attack))}
    used = {part for attack in context.made for part in _parts(attack) if isinstance(part, kinds)}
    chosen = sorted(str(part) for part in used - fixed)
    split, trials = context.tuned.split, context.tuned.trials
    unexplained = chosen if split == "fixed" else []
    on_test = bool(chosen) and _is_test(split)
    return judged(
        failed=bool(unexplained) or on_test,
        measured=f"{len(used)} adaptive gradients used, {len(chosen)} with other settings; "
        f"split {split!r}, {trials} trials",
        threshold="settings fixed in advance, or chosen on a split that is not the test set",
        sound="no setting was chosen on the samples that are scored",
        fault="settings were chosen on the test set: the lowest of several accuracies there "
        "overstates the attack"
        if on_test
        else f"{', '.join(unexplained[:2])}: the origin of these settings is not stated",
        remedy="choose them with tune() on validation data, and pass "
        "tuned=Provenance('validation', trials=...)",
        evidence={"used": sorted(map(str, used)), "chosen": chosen, "trials": trials},
    )


def surrogate_is_the_trained_one(context: Context) -> CheckOutcome:
    """The attacker uses the surrogate that the network was trained with.

    A surrogate that is narrowed after training hides the gradient from every attack that uses it.
    The surrogates of the layers are compared with ``audit(trained_with=...)``: one surrogate, or a
    mapping by layer name. A run passes it from its recipe.

    Source: SpikeGuard's own, after Özdenizci and Legenstein, TMLR 2024 (arXiv:2311.09266).
    """
    carried = {name: str(layer.surrogate) for name, layer in spiking_layers(context.model).items()}
    if not carried:
        return does_not_apply("the model has no spiking layer of SpikeGuard")
    stated = context.trained_with
    names = ", ".join(sorted(set(carried.values())))
    if stated is None:
        return not_run(
            f"the attacker uses {names}; the surrogate of training is unknown",
            remedy="state it: audit(trained_with=surrogate)",
        )
    trained = {n: str(stated.get(n)) for n in carried} if isinstance(stated, Mapping) else {}
    trained = trained or dict.fromkeys(carried, str(stated))
    other = [name for name in carried if carried[name] != trained[name]]
    return judged(
        failed=bool(other),
        measured=f"attacker {names}; training {', '.join(sorted(set(trained.values())))}",
        threshold="the same in every layer",
        sound="the attacker uses the gradient that training used",
        fault=f"{', '.join(other[:3])} was trained with {trained[other[0]]} and is attacked with "
        f"{carried[other[0]]}"
        if other
        else "",
        remedy="attack with the surrogate of training first, then with others; report both",
        evidence={"carried": carried, "trained": trained},
    )


def _is_test(split: str) -> bool:
    """Whether the words that name a split say that it is the test set."""
    words = re.findall("[a-z]+", split.lower())
    plain = re.sub(r"\b(not|never|no) (on |of )?(the )?test(s|ing)?\b", "", " ".join(words))
    return re.search(r"\btest(s|ing)?\b", plain) is not None


def _parts(part: object) -> Iterator[object]:
    """Yield an attack and everything in its fields, at any depth."""
    yield part
    if is_dataclass(part):
        for field in fields(part):
            yield from _parts(getattr(part, field.name))

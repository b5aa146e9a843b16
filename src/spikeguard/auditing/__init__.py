"""audit(): can a robustness number be believed? Small checks, each with a code, and one verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn

from spikeguard.attacks import (Attack, Threat, ThreatViolation)
from spikeguard.attacks.base import is_stochastic
from spikeguard.attacks.suites import (member, suitable)
from spikeguard.auditing.checks.scoring import (clean_errors_stay, each_sample_has_its_worst, nothing_was_tuned_on_the_test, scores_can_be_repeated)
from spikeguard.auditing.checks.stochasticity import determinism
from spikeguard.auditing.check import (Check, does_not_apply, judged, not_run, reason, title)
from spikeguard.auditing.context import (EOT, Attacked, Context)
from spikeguard.auditing.checks.convergence import (loss_has_settled, more_restarts_change_nothing, more_steps_change_nothing, step_size_is_right, success_is_kept)
from spikeguard.auditing.findings import (REQUIRED, Finding, Verdict, conclude)
from spikeguard.auditing.further import FURTHER
from spikeguard.auditing.checks.input_gradient import zero_gradient
from spikeguard.auditing.checks.batch_invariance import batch_invariance
from spikeguard.auditing.checks.alternative_losses import (loss_does_not_decide, targets_find_no_more)
from spikeguard.auditing.checks.queries import gradients_beat_queries
from spikeguard.auditing.checks.radii import (grey_is_a_guess, room_is_no_loss, unbounded_attack_succeeds)
from spikeguard.auditing.checks.strength import (iterative_beats_single_step, noise_is_weaker)
from spikeguard.auditing.subject import (Budget, Provenance)
from spikeguard.auditing.checks.surrogate_sweep import surrogate_sweep
from spikeguard.auditing.checks.transfer import (breaks_the_undefended, transfer_is_weaker)
from spikeguard.auditing.checks.validity import (model_is_untouched, valid_numbers)
from spikeguard.data import (ImageSet, as_image_set)
from spikeguard.neurons import Surrogate

__all__ = [
    "CHECKS",
    "FURTHER",
    "REQUIRED",
    "Attacked",
    "Budget",
    "Check",
    "Context",
    "Finding",
    "Provenance",
    "Verdict",
    "audit",
    "conclude",
    "does_not_apply",
    "judged",
    "not_run",
    "reported",
]

CHECKS: dict[str, Check] = {
    "S1": Check(batch_invariance, cost=3),
    "G19": Check(determinism, cost=2),
    "G15": Check(zero_gradient, cost=2),
    "G1": Check(iterative_beats_single_step, cost=21),
    "G2": Check(gradients_beat_queries, cost=400),
    "G3": Check(transfer_is_weaker, cost=50),
    "G25": Check(breaks_the_undefended, cost=50),
    "G4": Check(noise_is_weaker, cost=4),
    "G5": Check(unbounded_attack_succeeds, cost=10),
    "G6": Check(grey_is_a_guess, cost=10),
    "G7": Check(room_is_no_loss, cost=40),
    "G8": Check(more_steps_change_nothing, cost=40),
    "G9": Check(more_restarts_change_nothing, cost=600),
    "G10": Check(loss_has_settled, cost=50),
    "G11": Check(success_is_kept, cost=0),
    "G12": Check(step_size_is_right, cost=80, quick=False),
    "G13": Check(loss_does_not_decide, cost=60, quick=False),
    "G14": Check(targets_find_no_more, cost=400, quick=False),
    "S4": Check(surrogate_sweep, cost=400),
    "G28": Check(scores_can_be_repeated, cost=1),
    "G32": Check(nothing_was_tuned_on_the_test, cost=0),
    "G29": Check(model_is_untouched, cost=1),
    **FURTHER,
    # Last: these look at every attack that the others made.
    "G27": Check(valid_numbers, cost=2),
    "G30": Check(each_sample_has_its_worst, cost=0),
    "G31": Check(clean_errors_stay, cost=0),
}

_SAMPLES = {"full": 100, "quick": 64}
_NOISY = {"full": 100, "quick": 24}  # every gradient and score of these is averaged over draws
_STEPS = {"full": 20, "quick": 10}
_OUTSIDE = "outside the quick budget; audit with budget='full'"


def audit(
    model: nn.Module,
    data: ImageSet | tuple[Tensor, Tensor],
    *,
    threat: Threat,
    budget: Budget = "full",
    seed: int = 0,
    limit: int | None = None,
    batch_size: int = 64,
    attack_steps: int | None = None,
    substitutes: Mapping[str, nn.Module] | None = None,
    undefended: nn.Module | None = None,
    attack: Attack | None = None,
    tuned: Provenance | None = None,
    rescore: Callable[[Tensor, Tensor], Tensor] | None = None,
    trained_with: Surrogate | Mapping[str, Surrogate] | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Verdict:
    """Check whether the robustness of a model, as attacks measure it, can be believed.

    The model is examined in evaluation mode and its mode is restored. A check that cannot run,
    because the model raises or has no gradient, is "not run" and says why; a check that looks for
    the fault itself fails.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        data: An ImageSet or a pair (x, y).
        threat: The set whose robustness is audited, eps > 0.
        budget: "full", or "quick": fewer samples, steps and queries, and only what decides. The
            verdict says less, and in a fraction of the time.
        seed: Names all random streams.
        limit: Use only the first so many samples, >= 1; None is 100, in the quick budget 64, or 24
            of a stochastic model. Fewer samples mean wider intervals, hence fewer failures that
            depend on counts.
        batch_size: Samples at once, >= 1.
        attack_steps: Steps of PGD, >= 1; None is 20, in the quick budget 10.
        substitutes: Models trained for the same task, by name: attacks made on them must not do
            better than attacks on the model itself.
        undefended: A plainly trained model of the same kind, on which the attacks must succeed.
        attack: The attack whose result is reported, with the audit's threat set: its steps,
            restarts and step size are put to the test. None is APGD with 50 steps.
        tuned: How the settings of that attack were chosen; None: not at all.
        rescore: ``(x_adv, y) -> correct [N]``, bool, which answers in a fresh process.
        trained_with: The surrogate that the network was trained with, or one for each spiking
            layer's name; None: unknown.
        progress: Called with (checks done, checks in all, what comes next).

    Raises:
        ValueError: If an argument is out of range, or the data do not fit the model.

    Example:
        >>> verdict = sg.audit(model, data.test, threat=sg.Linf(8/255))   # doctest: +SKIP
        >>> verdict.status, verdict.failed                                # doctest: +SKIP
        ('unreliable', ('G15', 'S4'))
    """
    if budget not in get_args(Budget):
        raise ValueError(f"audit: budget is 'quick' or 'full', got {budget!r}.")
    if limit is None:
        limit = (_NOISY if is_stochastic(model) else _SAMPLES)[budget]
    attack_steps = _STEPS[budget] if attack_steps is None else attack_steps
    for name, number in (
        ("limit", limit),
        ("batch_size", batch_size),
        ("attack_steps", attack_steps),
    ):
        if number < 1:
            raise ValueError(f"audit: {name} must be >= 1, got {number}.")
    if not threat.eps > 0:
        raise ValueError(f"audit: the threat set needs eps > 0, got {threat.eps:g}.")
    if attack is not None and attack.threat != threat:
        raise ValueError(f"audit: attack is for {attack.threat}, the audit for {threat}.")
    x, y = as_image_set(data).batch(slice(limit))
    context = Context(
        *(model, x, y, threat),
        seed=seed,
        steps=attack_steps,
        batch_size=batch_size,
        budget=budget,
        substitutes=substitutes or {},
        undefended=undefended,
        attack=attack,
        tuned=tuned or Provenance(),
        rescore=rescore,
        trained_with=trained_with,
    )
    findings = []
    for number, (code, check) in enumerate(CHECKS.items()):
        if progress is not None:
            progress(number, len(CHECKS), f"{code}: {title(check.measure)}")
        findings.append(_run(code, check, context))
    if progress is not None:
        progress(len(CHECKS), len(CHECKS), "done")
    single = context.made.get(context.pgd())
    handed = None if attack is None else context.made.get(attack)
    return conclude(
        findings,
        upper_bound=context.upper_bound(),
        single=None if single is None else single.accuracy,
        reported=None if handed is None else handed.accuracy,
        settings=context.settings(),
    )


def reported(name: str, model: nn.Module, threat: Threat) -> Attack:
    """Return the attack of a suite by its name, for ``audit(attack=...)``.

    It averages the gradient of a stochastic model over as many draws as the audit does.

    Raises:
        ValueError: If no suite has an attack of this name, or the model gives it nothing to hold.
    """
    eot = EOT if is_stochastic(model) else 1
    attack = member(name, eps=threat.eps, norm=threat.norm, eot=eot)
    if suitable({name: attack}, model)[1]:
        raise ValueError(
            f"attack: {name} needs what this model does not have: spiking layers, for some "
            "gradients of a known recurrence, or answers that are counted spikes; name one with "
            "the model's own gradient, such as pgd40."
        )
    return attack


def _run(code: str, check: Check, context: Context) -> Finding:
    """Run one check; what stops it becomes a finding, never a pass."""
    began = time.monotonic()
    if context.budget == "quick" and not check.quick:
        return not_run(code, check.measure, _OUTSIDE)
    try:
        finding = check(context)
    except (RuntimeError, ThreatViolation) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        finding = not_run(code, check.measure, reason(error))
    return replace(finding, seconds=time.monotonic() - began)

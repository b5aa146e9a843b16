"""audit(): can a robustness number be believed? Small checks, each with a code, and one verdict."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from spikeguard.attacks import Threat, ThreatViolation
from spikeguard.auditing.chance import determinism
from spikeguard.auditing.context import Attacked, Check, Context, reason, title
from spikeguard.auditing.findings import Finding, Verdict, conclude
from spikeguard.auditing.gradients import zero_gradient
from spikeguard.auditing.invariance import batch_invariance
from spikeguard.auditing.strength import (
    iterative_beats_single_step,
    noise_is_weaker,
    unbounded_attack_succeeds,
)
from spikeguard.auditing.surrogates import surrogate_sweep
from spikeguard.auditing.validity import model_is_untouched, valid_numbers
from spikeguard.data import ImageSet, as_image_set

__all__ = ["CHECKS", "Attacked", "Check", "Context", "Finding", "Verdict", "audit", "conclude"]

CHECKS: dict[str, Check] = {
    "S1": batch_invariance,
    "G19": determinism,
    "G15": zero_gradient,
    "G1": iterative_beats_single_step,
    "G4": noise_is_weaker,
    "G5": unbounded_attack_succeeds,
    "S4": surrogate_sweep,
    "G29": model_is_untouched,
    "G27": valid_numbers,  # last: it also looks at every attack that the others made
}


def audit(
    model: nn.Module,
    data: ImageSet | tuple[Tensor, Tensor],
    *,
    threat: Threat,
    seed: int = 0,
    limit: int = 100,
    batch_size: int = 64,
    attack_steps: int = 20,
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
        seed: Names all random streams.
        limit: Use only the first so many samples, >= 1. Fewer samples mean wider intervals, hence
            fewer failures that depend on counts.
        batch_size: Samples at once, >= 1.
        attack_steps: Steps of PGD, >= 1.
        progress: Called with (checks done, checks in all, what comes next).

    Raises:
        ValueError: If an argument is out of range, or the data do not fit the model.

    Example:
        >>> verdict = sg.audit(model, data.test, threat=sg.Linf(8/255))   # doctest: +SKIP
        >>> verdict.status, verdict.failed                                # doctest: +SKIP
        ('unreliable', ('G15', 'S4'))
    """
    for name, number in (
        ("limit", limit),
        ("batch_size", batch_size),
        ("attack_steps", attack_steps),
    ):
        if number < 1:
            raise ValueError(f"audit: {name} must be >= 1, got {number}.")
    if not threat.eps > 0:
        raise ValueError(f"audit: the threat set needs eps > 0, got {threat.eps:g}.")
    x, y = as_image_set(data).batch(slice(limit))
    context = Context(model, x, y, threat, seed=seed, steps=attack_steps, batch_size=batch_size)
    findings = []
    for number, (code, check) in enumerate(CHECKS.items()):
        if progress is not None:
            progress(number, len(CHECKS), f"{code}: {title(check)}")
        findings.append(_run(code, check, context))
    if progress is not None:
        progress(len(CHECKS), len(CHECKS), "done")
    single = context.made.get(context.pgd())
    return conclude(
        findings,
        upper_bound=_upper_bound(context),
        single=None if single is None else single.accuracy,
        settings=context.settings(),
    )


def _run(code: str, check: Check, context: Context) -> Finding:
    """Run one check; what stops it becomes a finding, never a pass."""
    began = time.monotonic()
    try:
        finding = check(context)
    except (RuntimeError, ThreatViolation) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        finding = Finding(code, title(check), "not run", reason(error))
    return replace(finding, seconds=time.monotonic() - began)


def _upper_bound(context: Context) -> float | None:
    """Return the accuracy under the per-sample worst of all attacks made at the audited eps."""
    eps = context.threat.eps
    made = [outcome for attack, outcome in context.made.items() if attack.threat.eps == eps]
    if not made:
        return None
    # Of a noisy model, the choice for each sample is re-scored and can do worse than one attack.
    return min(float(context.worst(made).mean()), *(outcome.accuracy for outcome in made))

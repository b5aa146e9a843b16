"""audit(): run every check on a model, judge the printed number and the bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, AttackError, describe
from spikeguard.attacks.model_access import is_stochastic
from spikeguard.attacks.suites import attack_by_name, suitable
from spikeguard.attacks.threat import Threat, ThreatViolation, require_ball_in_box
from spikeguard.attacks.threat_names import norm_of
from spikeguard.auditing.check import Check, does_not_apply, not_run, reason, title
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.findings import Finding, Verdict, conclude
from spikeguard.auditing.numbers import MAX_GAP, Claim
from spikeguard.auditing.registry import CHECKS, NOT_ON_EVENTS
from spikeguard.auditing.subject import Budget, Provenance
from spikeguard.auditing.tolerances import looks
from spikeguard.auditing.unfinished import UnfinishedAudit
from spikeguard.auditing.worst_case import measure, require_same_images
from spikeguard.data.images import ImageSet, as_image_set
from spikeguard.data.stratified import few_classes
from spikeguard.evaluation.identity import identity_of
from spikeguard.evaluation.result import Evaluation
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.preflight.quick import quick_check, warn
from spikeguard.storage.digests import weights_digest, without_addresses
from spikeguard.system.model_errors import is_model_error
from spikeguard.system.progress import Progress
from spikeguard.system.progress_bar import shown_progress

__all__ = ["audit", "reported", "require_suitable"]


_SAMPLES = {"full": 100, "quick": 64}
_NOISY = {"full": 100, "quick": 24}  # of a stochastic model, whose gradients and scores need draws
_STEPS = {"full": 20, "quick": 10}
PRINTED = "pgd40"  # with the step size of suite "papers"
_WIDE = 512  # samples of a check that attacks nothing
_NOT_QUICK = "outside the quick budget; audit with budget='full'"


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
    printed: Claim | None = None,
    max_gap: float = MAX_GAP,
    stored: Mapping[str, Evaluation] | None = None,
    check: bool = True,
    out: str | Path | None = None,
    progress: Progress = "auto",
) -> Verdict:
    """Judge the number that a paper would print, and the upper bound on robust accuracy.

    The model runs in evaluation mode; its own mode is restored. A check that cannot run, because
    the model raises or has no gradient, is "not run" with a reason. A check that looks for exactly
    this fault fails.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        data: An ImageSet or a pair (x, y).
        threat: The set whose robustness is audited, eps > 0.
        budget: "full", or "quick": fewer samples, steps and queries, and no expensive check that
            does not decide the verdict. It takes a fraction of the time and covers less.
        seed: Seed of all random streams.
        limit: Number of samples of the first look, taken from the start, >= 1. None is 100; in the
            quick budget it is 64, or 24 for a stochastic model. A check that they cannot decide
            looks at twice and then four times as many, as far as the data have them.
        batch_size: Samples per batch, >= 1.
        attack_steps: Steps of PGD, >= 1; None is 20, in the quick budget 10.
        substitutes: Models trained for the same task, by name. Attacks made on them must not be
            stronger than attacks on the model itself.
        undefended: A plainly trained model of the same kind, which the attacks must break.
        attack: The attack of the printed number, with the audit's threat set; its steps, restarts
            and step size are tested. None prints PGD-40 with the papers' step and the model's own
            surrogate, and tests APGD with 50 steps.
        tuned: How the settings of that attack were chosen; None: they were fixed in advance.
        rescore: ``(x_adv, y) -> correct [N]``, bool, computed in a fresh process.
        trained_with: The surrogate that the network was trained with, or a mapping from the names
            of spiking layers to surrogates; None: unknown.
        printed: A number measured elsewhere, judged instead of one that the audit measures.
        max_gap: The printed number may exceed the bound by this share, in [0, 1].
        stored: Evaluations of the same model at the same threat set, by name, on the first images
            of ``data``. Their attacks count in the bound. If none has a converging search of these
            images, the audit ends with a short one, of 600 gradients a sample.
        check: Whether to reject a model at once that gives other logits in a second call or in
            another batch; see :func:`~spikeguard.preflight.quick.quick_check`. With False, checks
            S1, G28 and G29 judge it.
        out: Folder for finished checks until the verdict is saved as ``out`` with the suffix
            ``.json``: a killed audit continues when it is called again with the same arguments.
            None stores nothing.
        progress: "auto" shows a bar on standard error if that is a terminal; or a callback ``(parts
            done, number of parts, next part)``, or None. The parts are the checks and the bound.

    Raises:
        ValueError: If an argument is out of range, the data do not fit the model, or the model
            fails the check.

    Example:
        >>> verdict = sg.audit(model, data.test, threat=sg.Linf(8/255))   # doctest: +SKIP
        >>> verdict.printed.status, verdict.status                        # doctest: +SKIP
        ('refuted', 'no fault found')
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
    if not 0 <= max_gap <= 1:
        raise ValueError(f"audit: max_gap is a share in [0, 1], got {max_gap:g}.")
    if printed is not None:
        if attack is not None:
            raise ValueError("audit: attack and printed both name the printed number; pass one.")
        printed.require_radius(threat.eps)
    images = as_image_set(data)
    require_same_images(stored or {}, images)
    sizes = looks(limit, len(images))
    x, y = images.batch(slice(max(sizes[-1], _WIDE)))
    require_ball_in_box(threat, x[:limit])
    if lacking := few_classes(images, limit):
        warn([f"audit: {lacking}."])
    if check:
        with suppress(AttackError):  # G27 judges numbers that are not finite
            warn(quick_check(model, x[:limit], y[:limit]))
    whole = Context(
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
        looks=len(sizes),
    )
    context, once = whole.first(sizes[0]), replace(whole, looks=1)  # for checks with one look
    findings, parts = [], len(CHECKS) + 1  # the checks and the bound
    kept = None
    if out is not None:
        kept = UnfinishedAudit(
            Path(out), _identity(whole, images, sizes), {"whole": whole, "once": once}
        )
    with shown_progress(progress, "audit") as update:
        for number, (code, each) in enumerate(CHECKS.items()):
            if update is not None:
                update(number, parts, f"{code}: {title(each.measure)}")
            finding = None if kept is None else kept.restore(code)
            if finding is None:
                before = None if kept is None else kept.mark()
                seen = [once.first(_WIDE)] if each.wide else [whole.first(n) for n in sizes]
                finding = _run(code, each, seen)
                if kept is not None and before is not None:
                    kept.store(code, finding, before)
            findings.append(finding)
        if update is not None:
            update(len(CHECKS), parts, "the bound")
        found = measure(
            *(context, images, attack or reported(PRINTED, model, threat)),
            later=[whole.first(n) for n in sizes[1:]],
            claim=printed,
            stored=stored,
            max_gap=max_gap,
            out=None if kept is None else kept.folder / "search",
        )
        if update is not None:
            update(parts, parts, "done")
    return conclude(
        findings,
        bound=found.bound,
        sources=found.sources,
        printed=found.printed,
        passed_in=attack is not None,
        settings=context.settings(),
    )


def reported(name: str, model: nn.Module, threat: Threat) -> Attack:
    """Return an attack of the suites by name, for ``audit(attack=...)``.

    Against a stochastic model it averages the gradient over as many draws as the audit does.

    Raises:
        ValueError: If no suite has an attack of this name, or the attack does not fit the model.
    """
    eot = EOT if is_stochastic(model) else 1
    attack = attack_by_name(name, eps=threat.eps, norm=norm_of(threat), eot=eot)
    require_suitable(name, attack, model)
    return attack


def require_suitable(name: str, attack: Attack, model: nn.Module) -> None:
    """Reject an attack whose gradient does not apply to a model.

    Raises:
        ValueError: In that case; it names an attack that applies.
    """
    if suitable({name: attack}, model)[1]:
        raise ValueError(
            f"attack: {name} does not fit this model: it needs spiking layers, for some gradients "
            "with a known recurrence, logits that are spike counts, or noise with a known mean; "
            "choose an attack with the model's own gradient, such as pgd40."
        )


def _identity(whole: Context, images: ImageSet, sizes: Sequence[int]) -> dict[str, Any]:
    """Return everything that the findings of an audit depend on, as plain data."""
    others = {**whole.substitutes, "": whole.undefended}
    return {
        **identity_of(whole.model, images),
        "torch": torch.__version__,
        "looks": list(sizes),
        "batch_size": whole.batch_size,
        **{name: getattr(whole, name) for name in ("seed", "steps", "budget")},
        "threat": describe(whole.threat),
        "attack": None if whole.attack is None else without_addresses(repr(whole.attack)),
        "tuned": asdict(whole.tuned),
        "trained_with": repr(whole.trained_with),
        "rescored": whole.rescore is not None,
        "others": {
            name: weights_digest(model.state_dict())
            for name, model in others.items()
            if model is not None
        },
    }


def _run(code: str, check: Check, contexts: Sequence[Context]) -> Finding:
    """Run one check; an error that stops it becomes a finding, never a pass."""
    started = time.monotonic()
    check = replace(check, code=code)  # also for a check that was added to CHECKS without one
    if contexts[0].on_events and code in NOT_ON_EVENTS:
        return check.finding(does_not_apply(NOT_ON_EVENTS[code]))
    if contexts[0].budget == "quick" and not check.quick:
        return check.finding(not_run(_NOT_QUICK))
    try:
        finding = check.decide(contexts)
    except Exception as error:
        if not (is_model_error(error) or isinstance(error, ThreatViolation)):
            raise
        finding = check.finding(not_run(reason(error)))
    return replace(finding, seconds=time.monotonic() - started)

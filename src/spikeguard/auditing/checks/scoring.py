"""Is the reported number counted correctly? Checks G24, G28, G30, G31."""

from __future__ import annotations

from copy import deepcopy
from io import BytesIO

import torch
from torch import Tensor

from spikeguard.attacks.base import describe
from spikeguard.auditing.check import CheckOutcome, judged
from spikeguard.auditing.context import Context
from spikeguard.auditing.tolerances import LUCK, ROUNDING, differs, percent, worst_of
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.rng import key

__all__ = [
    "clean_errors_stay",
    "each_sample_has_its_worst",
    "scores_can_be_repeated",
    "counted_on_the_model",
]

_TINY = 1e-9


def scores_can_be_repeated(context: Context) -> CheckOutcome:
    """Scoring the saved adversarial inputs again gives the same result.

    The inputs of the reported attack are scored by a fresh process that loads the run or, in a
    library call, by a copy of the model that loads the saved weights. A stochastic model is scored
    on fresh draws, so only its accuracy is compared.

    Source: Carlini et al., 2019 (arXiv:1902.06705); RobustBench, which scores again.
    """
    reported = context.attacked(context.reference())
    again = _again(context, reported.x_adv)
    where = "a copy with the saved weights" if context.rescore is None else "a fresh process"
    if not context.stochastic:
        again = torch.minimum(again, context.clean)
    n, other = len(context), int(((again - reported.right).abs() > 0.5).sum())
    before, after = reported.accuracy, float(again.mean())
    changed = context.share(other)
    failed = differs(changed)
    if context.stochastic:
        failed = context.gap(again, reported.right).away(LUCK)
    return judged(
        failed=failed,
        measured=f"{percent(before)} reported, {percent(after)} in {where}; {other} of {n} "
        f"differ, {changed}",
        threshold=f"the class changes for at most {percent(ROUNDING)} of the samples"
        if not context.stochastic
        else f"accuracies differ by at most {percent(LUCK)}",
        sound="the adversarial inputs and the weights reproduce the number",
        fault=f"scored again in {where}, the same adversarial inputs leave {percent(after)} "
        f"instead of {percent(before)}: the number depends on state that was not saved",
        remedy="store everything that forward needs in weights and buffers, and reset the rest",
        evidence={"reported": before, "again": after, "differ": other, "where": where},
    )


def each_sample_has_its_worst(context: Context) -> CheckOutcome:
    """The reported number is the mean over samples of the worst attack for each.

    The lowest accuracy of a single attack is higher, because no attack is the worst on every
    sample. The check tests the audit's upper bound. If an attack was passed as the reported one, it
    tests the accuracy under that attack as well, which may exceed the bound only by chance.

    Source: Carlini et al., 2019 (arXiv:1902.06705).
    """
    context.attacked(context.reference())
    made = context.reported()
    right = torch.stack([outcome.right for outcome in made])
    least = float(right.mean(1).min())
    worst = least if context.stochastic else float(right.amin(0).mean())
    bound = context.upper_bound()
    assert bound is not None
    alone = worst
    high: bool | None = False
    if context.attack is not None:
        handed = context.attacked(context.attack)
        alone = handed.accuracy
        high = context.gap(handed.right, context.worst(made)).above(LUCK)
    return judged(
        failed=worst_of(high, bound > worst + _TINY),
        measured=f"{percent(bound)} reported for {len(made)} attacks; per-sample worst "
        f"{percent(worst)}, best single attack {percent(least)}"
        + (
            f", the attack passed to the audit {percent(alone)}"
            if context.attack is not None
            else ""
        ),
        threshold="the reported number is not above the per-sample worst"
        + (
            f", and that of the attack passed to the audit by at most {percent(LUCK)}"
            if context.attack is not None
            else ""
        ),
        sound="a sample counts as robust only if no attack fools it",
        fault="the reported attack misses adversarial inputs that others find"
        if high
        else f"{percent(bound)} are reported, but only {percent(worst)} of the samples stay "
        "correct under every attack",
        remedy="take the minimum over attacks for each sample first, then the mean over samples",
        evidence={
            "reported": bound,
            "worst": worst,
            "single": least,
            "handed_over": alone if context.attack is not None else None,
            "attacks": len(made),
        },
    )


def clean_errors_stay(context: Context) -> CheckOutcome:
    """A sample that is misclassified without an attack counts as wrong under every attack.

    An attack must not correct an error. The finding states the clean accuracy as well.

    Source: Croce and Hein, 2020 (AutoAttack's protocol).
    """
    context.attacked(context.reference())
    clean = float(context.clean.mean())
    failed: bool | None
    if context.stochastic:
        healed = sum(max(0.0, out.accuracy - clean) for out in context.reported())
        gaps = [context.gap(out.right, context.clean) for out in context.reported()]
        failed = worst_of(*(gap.above(LUCK) for gap in gaps))
        measured = f"clean accuracy {percent(clean)}, never above it under attack"
    else:
        counts = [int((out.right > context.clean).sum()) for out in context.reported()]
        healed, failed = float(max(counts)), max(counts) > 0
        measured = f"clean accuracy {percent(clean)}; {max(counts)} errors corrected by an attack"
    return judged(
        failed=failed,
        measured=measured,
        threshold="none",
        sound="robust accuracy counts only samples that are correct without an attack",
        fault="samples that are misclassified without an attack count as robust under it",
        remedy="attack the correct samples, and count the others as wrong",
        evidence={"clean": clean, "healed": healed},
    )


def _again(context: Context, x_adv: Tensor) -> Tensor:
    """Score inputs with a model that has only the saved state; return the correct ones [N]."""
    if context.rescore is not None:
        return context.rescore(x_adv, context.y).double()
    saved = BytesIO()
    torch.save(context.model.state_dict(), saved)
    saved.seek(0)
    copy = deepcopy(context.model)
    copy.load_state_dict(torch.load(saved, map_location=context.device, weights_only=True))
    found = evaluate(
        *(copy, (x_adv, context.y), {}),
        seed=key(context.seed, "audit", "again"),
        batch_size=context.batch_size,
        check=False,
        progress=None,
    )
    return found.outcomes["clean"]


def counted_on_the_model(context: Context) -> CheckOutcome:
    """Every attack is scored on the audited model.

    An input made on a substitute, on a twin or by a search that stops early is an adversarial
    example only if the audited model misclassifies it. All inputs that the audit recorded are
    scored again and compared with the record.

    Source: Pintor et al., 2022 (arXiv:2106.09947), failures of transfer.
    """
    context.attacked(context.pgd())
    wrong: dict[str, float] = {}
    answers: list[bool | None] = []
    for attack, outcome in context.made.items():
        again = evaluate(
            context.model,
            (outcome.x_adv, context.y),
            {},
            seed=key(context.seed, "audit", "rescored"),
            batch_size=context.batch_size,
            check=False,
            progress=None,
        ).outcomes["clean"]
        n = len(context)
        if context.stochastic:
            gap = abs(float(again.mean()) - outcome.accuracy)
            answers.append(context.gap(again, outcome.right).away(LUCK))
        else:
            gap = float((again != outcome.right).double().mean())
            answers.append(differs(context.share(gap * n)))
        if answers[-1]:
            wrong[str(describe(attack))] = gap
    return judged(
        failed=worst_of(*answers),
        measured=f"{len(context.made) - len(wrong)} of {len(context.made)} attacks have the same "
        "score again",
        threshold=f"at most {percent(ROUNDING)} of the samples differ",
        sound="transferred inputs count only if they fool the audited model",
        fault=f"for {len(wrong)} attacks the record differs from the score on the model: success "
        "was counted on another model",
        remedy="score every adversarial input on the audited model, and only there",
        evidence={"wrong": wrong},
    )

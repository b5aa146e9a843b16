"""Does the true loss follow the gradient that the attack uses? Checks G17, G18, S17."""

from __future__ import annotations

import torch
from torch import Tensor

from spikeguard.attacks.losses import Loss, cross_entropy, margin
from spikeguard.attacks.model_access import classify
from spikeguard.attacks.threat import peak_of
from spikeguard.auditing.check import CheckOutcome, judged, not_run
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.input_gradients import input_gradients
from spikeguard.auditing.tolerances import LUCK, percent
from spikeguard.evaluation.estimates import Estimate

__all__ = ["ascent", "finite_differences", "stable_predictions"]

_RADIUS = 4 / 255  # a cube of width 8/255
_UNSTABLE = 0.5
_CHANCE = 0.5  # share of samples at which a random gradient has the right sign
_PAIRS = {"full": 32, "quick": 16}
_RANDOM = 8  # random steps that the step along the gradient is compared with
_FEWEST = 8  # fewest samples for a meaningful share
_REMEDY = (
    "attack with other surrogates and their per-sample worst case (suite 'surrogates'), with a "
    "gradient-free estimate (NES) and with Square"
)


def stable_predictions(context: Context) -> CheckOutcome:
    """The margin is stable in a small neighbourhood.

    The margin (label logit against the largest other) is measured at uniform points of a cube of
    width 8/255 around each sample. If it changes by its own size, the loss surface is so noisy that
    a gradient does not predict the next step. A change counts as 1 at most, so samples at the
    boundary, where the margin is 0, do not decide.

    Source: Pintor et al., "Indicators of attack failure", 2022 (arXiv:2106.09947), who flag from
    0.1 to 0.5.
    """
    draws, peak = context.pick(full=100, quick=20), peak_of(context.threat)
    changes = []
    for index in context.batches():
        x = context.x[index]
        streams = context.draws(index, "cube")
        here = _loss(context, index, x, margin)
        size = torch.where(here == 0, 1.0, here.abs())
        total = torch.zeros_like(here)
        for _ in range(draws):
            cube = _RADIUS * (2 * streams.uniform(x.shape) - 1).to(x.dtype)
            there = _loss(context, index, (x + cube).clamp(0, peak), margin)
            total += ((there - here).abs() / size).clamp_max(1)
        changes.append(total / draws)
    change = torch.cat(changes)
    found = Estimate.mean(change, context.looks)
    mean = found.value
    return judged(
        failed=found.above(_UNSTABLE),
        measured=f"the margin changes by {found} of its size within 4/255",
        threshold=f"at most {percent(_UNSTABLE)}",
        sound="the loss surface is smooth enough for gradients",
        fault=f"within 4/255 of a sample the margin changes by {percent(mean)} of its size: noise, "
        "not robustness, stops a gradient attack here",
        remedy="attack the smoothed loss (average gradients over noise on the input: EoT, NES), "
        "and add Square",
        evidence={"mean": mean, "median": float(change.median()), "draws": draws},
    )


def finite_differences(context: Context) -> CheckOutcome:
    """The gradient agrees with finite differences of the network's smoothed loss.

    The true function of a spiking network is piecewise constant, and its surrogate gradient belongs
    to another function. Random displacements of size eps/2 are tested in opposite pairs, and the
    differences of the true loss are correlated with the predictions of the gradient. The
    correlation is 1 for a linear function, and 0 on average for a random gradient. Only its sign
    is judged.

    Source: Carlini et al., 2019 (arXiv:1902.06705), numerical gradients; Salimans et al., 2017
    (arXiv:1703.03864), antithetic pairs.
    """
    pairs, peak = _PAIRS[context.budget], peak_of(context.threat)
    found = []
    for index, grad in input_gradients(context):
        x, streams = context.x[index], context.draws(index, "pairs")
        size = context.threat.eps / 2 / context.reach
        rows = []
        for _ in range(pairs):
            u = size * streams.normal(x.shape).to(x.dtype)
            there, back = (x + u).clamp(0, peak), (x - u).clamp(0, peak)
            rise = _loss(context, index, there) - _loss(context, index, back)
            rows.append(torch.stack([((there - back) * grad).flatten(1).sum(1), rise]))
        predicted, seen = torch.stack(rows).double().unbind(1)  # each [pairs, B]
        length = predicted.norm(dim=0) * seen.norm(dim=0)
        cosine = (predicted * seen).sum(0) / length.clamp_min(torch.finfo(length.dtype).tiny)
        found.append(torch.where(length > 0, cosine, torch.nan))
    cosine = torch.cat(found)
    cosine = cosine[~cosine.isnan()]
    if len(cosine) < _FEWEST:
        return _nothing(len(cosine))
    median = float(cosine.median())
    quartiles = cosine.quantile(torch.tensor([0.25, 0.75], dtype=cosine.dtype)).tolist()
    return _majority(
        Estimate.share(int((cosine > 0).sum()), len(cosine), context.looks),
        len(cosine),
        measured=f"median correlation {median:.2f} over {pairs} pairs",
        fault=f"the gradient does not predict where the true loss rises (median correlation "
        f"{median:.2f}), so following it is no attack",
        sound="where the gradient points, the true loss rises",
        evidence={"median": median, "quartiles": quartiles, "pairs": pairs},
    )


def ascent(context: Context) -> CheckOutcome:
    """A step along the surrogate gradient raises the true loss more than a random step.

    From each sample the check takes a step of size eps/2 in the direction of the attack, and eight
    steps of the same size in random directions. The loss is that of the true network, whatever
    surrogate the gradient came from.

    Source: SpikeGuard's own, after Carlini et al., 2019 (arXiv:1902.06705).
    """
    eps, peak = context.threat.eps, peak_of(context.threat)
    if context.threat.norm not in ("linf", "l2"):
        return not_run(
            f"one step of {context.threat.norm} moves a pixel or two out of the box",
            remedy="audit with an Linf or L2 threat too",
        )
    better, rises = [], []
    for index, grad in input_gradients(context):
        x, streams = context.x[index], context.draws(index, "steps")

        def rise(direction: Tensor, index: Tensor = index, x: Tensor = x) -> Tensor:
            there = (x + eps / 2 * context.threat.steepest(direction)).clamp(0, peak)
            return _loss(context, index, there) - _loss(context, index, x)

        guided = rise(grad)
        blind = torch.stack(
            [rise(streams.normal(x.shape).to(x.dtype)) for _ in range(_RANDOM)]
        ).mean(0)
        usable = (grad.flatten(1).abs().amax(1) > 0) & ((guided != 0) | (blind != 0))
        better.append((guided > blind)[usable])
        rises.append(torch.stack([guided, blind], 1)[usable])
    above, both = torch.cat(better), torch.cat(rises)
    if len(above) < _FEWEST:
        return _nothing(len(above))
    guided, blind = both.mean(0).tolist()
    return _majority(
        Estimate.share(int(above.sum()), len(above), context.looks),
        len(above),
        measured=f"along the gradient the loss rises by {guided:.2g}, at random by {blind:.2g}",
        fault="a step along the surrogate gradient raises the true loss no more than a random step",
        sound="the surrogate gradient raises the loss of the true network",
        evidence={"guided": guided, "random": blind},
    )


def _majority(
    positive: Estimate,
    n: int,
    *,
    measured: str,
    fault: str,
    sound: str,
    evidence: dict[str, object],
) -> CheckOutcome:
    """Judge a share whose value by chance is one half."""
    enough = positive.above(_CHANCE + LUCK)
    return judged(
        failed=None if enough is None else not enough,
        measured=f"{measured}; positive for {positive} of {n} samples",
        threshold=f"positive for more than {percent(_CHANCE + LUCK)}; by chance {percent(_CHANCE)}",
        sound=sound,
        fault=fault,
        remedy=_REMEDY,
        evidence={**evidence, "positive": round(positive.value * n), "samples": n},
    )


def _nothing(n: int) -> CheckOutcome:
    return not_run(f"{n} samples have both a gradient and a loss that changes; needs {_FEWEST}")


def _loss(context: Context, index: Tensor, x: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the true losses at inputs x [B], under the same noise in every call."""
    with context.searching(index) as (_, y), torch.no_grad():
        return loss(classify(context.model, x.to(context.device), y), y).cpu()

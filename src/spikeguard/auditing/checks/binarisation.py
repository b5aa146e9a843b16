"""Does the attack find adversarial examples that are known to exist? Check G26."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.searches.noise import UniformNoise
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged, not_run
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.tolerances import percent, worst_of
from spikeguard.evaluation.estimates import Estimate
from spikeguard.rng import SampleStreams

__all__ = ["Binarised", "Hook", "active_test", "binarised"]

_INNER = 199  # points of class 0 per sample
_TRIED = 8  # boundary points, of which the farthest is used
_GUESSES = 50  # points of the random search
_INSIDE = 0.95  # radius of the inner points, as a share of eps
_FITTING = 300
_ENOUGH = 0.9  # share of the samples that the attack must find
_TRIVIAL = 0.5  # share that random search may find before the test is too easy
_FEWEST = 8
_EXPONENT = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def active_test(context: Context) -> CheckOutcome:
    """The attack finds adversarial examples that exist by construction.

    For every sample a linear readout on the penultimate features (averaged over time steps) is
    trained to separate points in the ball of 0.95 eps from one point at distance eps. That point
    is then an adversarial example. The strongest attack of the audit, with its usual settings and
    through the whole network, must find one. Fifty random points must find far fewer, otherwise
    the test is too easy. It tests the attack and its gradient, not the robustness of the network.

    Source: Zimmermann et al., "Increasing confidence in adversarial robustness evaluations", 2022
    (arXiv:2206.13991).
    """
    n = len(context)
    with context.searching(torch.arange(1)) as (first, _):
        hook = Hook.on(context.model, first)
    if hook is None:
        return does_not_apply(
            "the model has no last linear layer whose input could be used as features"
        )
    fooled, guessed = [], []
    for index in torch.split(torch.arange(n), context.batch_size):
        model, kept = binarised(context, hook, index)
        rows = index[kept]
        if not len(rows):
            continue
        chosen = model.take(kept)
        fooled.append(_success(context, chosen, rows, context.strongest()))
        guessed.append(
            _success(context, chosen, rows, UniformNoise(context.threat, draws=_GUESSES))
        )
    tested = sum(map(len, fooled))
    if tested < _FEWEST:
        return not_run(
            f"the features separate the edge of the ball from its inside for only {tested} of {n} "
            "samples" + (", through the noise" if context.stochastic else ""),
        )
    found, lucky = (int(torch.cat(parts).sum()) for parts in (fooled, guessed))
    missed, easy = (Estimate.share(k, tested, context.looks) for k in (tested - found, lucky))
    if easy.above(_TRIVIAL):
        return not_run(
            f"{_GUESSES} random points find {lucky} of {tested}: the test is too easy",
        )
    return judged(
        failed=worst_of(missed.above(1 - _ENOUGH), easy.above(_TRIVIAL)),
        measured=f"the attack misses {tested - found} of {tested}, {missed}; {_GUESSES} random "
        f"points find {lucky}, {easy}",
        threshold=f"the attack misses at most {percent(1 - _ENOUGH)}, and random search finds at "
        f"most {percent(_TRIVIAL)}",
        sound="the attack finds the adversarial examples that exist",
        fault=f"of {tested} adversarial examples known to exist the attack finds {found}, so what "
        "it leaves is no evidence of robustness",
        remedy="improve the attack on this test, which needs no other model: other surrogates, "
        "more steps, another loss",
        evidence={"found": found, "random": lucky, "tested": tested, "left_out": n - tested},
    )


class Binarised(nn.Module):
    """The network with a separate two-class readout for each of some samples.

    Each row of a batch uses the readout of the nearest sample in the norm of the threat, so an
    attack may pass rows in any number and order.

    Args:
        model: The network.
        hook: Location of its penultimate features.
        x: The samples [N, ...].
        weight: Readout of each sample [N, F].
        bias: Offset of each sample [N].
        p: The norm's exponent.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        model: nn.Module,
        hook: Hook,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        p: float,
    ):
        super().__init__()
        self.model, self.hook, self.p = model, hook, p
        self.register_buffer("x", x)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def take(self, which: Tensor) -> Binarised:
        """Return the network with the readouts of a subset of the samples."""
        which = which.to(self.x.device)
        return Binarised(
            self.model, self.hook, self.x[which], self.weight[which], self.bias[which], self.p
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [B, 2]; class 1 is that of the boundary point."""
        far = torch.cdist(x.detach().flatten(1), self.x.flatten(1), p=self.p)
        own = far.argmin(1)
        score = (self.hook.features(self.model, x) * self.weight[own]).sum(1) + self.bias[own]
        return torch.stack([-score, score], 1)


@dataclass(frozen=True)
class Hook:
    """The linear layer that computes the logits; its input is the penultimate features."""

    layer: nn.Linear

    @classmethod
    def on(cls, model: nn.Module, x: Tensor) -> Hook | None:
        """Find the last linear layer that runs; None if its output is not the logits."""
        linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
        with torch.no_grad(), _inputs(linear) as seen:
            logits = model(x)
        if not seen or seen[-1][0].out_features != logits.shape[1]:
            return None
        return cls(seen[-1][0])

    def features(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return the features of a forward pass, averaged over time [B, F]."""
        with _inputs([self.layer]) as seen:
            model(x)
        steps = [value.reshape(-1, len(x), value.shape[-1]) for _, value in seen]
        return torch.cat(steps).mean(0)


def binarised(context: Context, hook: Hook, index: Tensor) -> tuple[Binarised, Tensor]:
    """Return the network with readouts trained for some samples, and which of them work [B].

    A readout works if the network classifies the clean sample as 0 and the boundary point as 1 on
    every tested draw.
    """
    x = context.x[index].to(context.device)
    streams = context.draws(index, "active")
    inside = replace(context.threat, eps=_INSIDE * context.threat.eps)  # type: ignore[type-var]
    edges = [_edge(context, x, streams) for _ in range(_TRIED)]
    inner = torch.stack(
        [
            _features(context, hook, p, index)
            for p in (x, *(inside.sample(x, streams) for _ in range(_INNER)))
        ],
        1,
    )
    outer = torch.stack([_features(context, hook, edge, index) for edge in edges], 1)
    far = (outer - inner.mean(1, keepdim=True)).norm(dim=2).argmax(1)
    rows = torch.arange(len(index), device=x.device)
    weight, bias = _readout(inner, outer[rows, far])
    model = Binarised(context.model, hook, x, weight, bias, _EXPONENT[context.threat.norm])
    works = torch.ones(len(index), dtype=torch.bool)
    for draw in range(EOT if context.stochastic else 1):
        for point, side in ((x, 0), (torch.stack(edges, 1)[rows, far], 1)):
            with context.searching(index), context.streams(index, f"works {draw}"), torch.no_grad():
                works &= (model(point).argmax(1) == side).cpu()
    return model, works


def _readout(inner: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a logistic regression for each sample: inner [B, n, F] against outer [B, F].

    The outer point has as much weight as all others together. The threshold is then set midway
    between the outer point and the nearest inner one, and the score is scaled to -1 and 1 there.
    """
    centre = inner.mean(1, keepdim=True)
    points = torch.cat([inner, outer[:, None]], 1) - centre
    points = points / points.norm(dim=2).amax(1).clamp_min(1e-12)[:, None, None]
    n = inner.shape[1]
    sign = torch.ones(n + 1, device=inner.device)
    sign[:-1] = -1
    share = torch.full_like(sign, 0.5 / n)
    share[-1] = 0.5
    signed = points * sign[:, None]
    weight, ahead = torch.zeros_like(outer), torch.zeros_like(outer)
    for step in range(_FITTING):  # Nesterov's method; the loss is 1/4-smooth in the weight
        slope = share * torch.sigmoid(-(signed @ ahead[:, :, None])[..., 0])
        moved = ahead + 4 * (slope[:, :, None] * signed).sum(1)
        ahead = moved + step / (step + 3) * (moved - weight)
        weight = moved
    near = (inner @ weight[:, :, None])[..., 0].amax(1)
    there = (outer * weight).sum(1)
    half = ((there - near) / 2).clamp_min(1e-12)
    return weight / half[:, None], -(there + near) / 2 / half


def _edge(context: Context, x: Tensor, streams: SampleStreams) -> Tensor:
    """Return a random point at distance eps, inside the box."""
    direction = context.threat.steepest(streams.normal(x.shape, device=x.device).to(x.dtype))
    return context.threat.project(x + context.threat.eps * direction, x)


def _features(context: Context, hook: Hook, x: Tensor, index: Tensor) -> Tensor:
    with context.searching(index), torch.no_grad():
        if not context.stochastic:
            return hook.features(context.model, x)
        return torch.stack([hook.features(context.model, x) for _ in range(EOT)]).mean(0)


def _success(context: Context, model: Binarised, index: Tensor, attack: Attack) -> Tensor:
    """Attack the readouts of some samples; return which attacks succeed [B]."""
    x = context.x[index].to(context.device)
    y = torch.zeros(len(index), dtype=torch.int64, device=x.device)
    x_adv = attack(model, x, y, generator=context.draws(index, "active attack"))
    context.threat.check(x_adv, x)
    with context.searching(index), context.streams(index, "found"), torch.no_grad():
        found: Tensor = model(x_adv).argmax(1) == 1
    return found.cpu()


@contextmanager
def _inputs(layers: Sequence[nn.Linear]) -> Iterator[list[tuple[nn.Linear, Tensor]]]:
    """Record the inputs of some linear layers inside the block, in call order."""
    seen: list[tuple[nn.Linear, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Linear)
        seen.append((module, inputs[0]))

    handles = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()

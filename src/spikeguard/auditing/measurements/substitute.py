"""A substitute for transfer attacks: a small network trained on the model's predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from spikeguard.attacks.model_access import evaluating
from spikeguard.attacks.threat import peak_of
from spikeguard.auditing.context import Context
from spikeguard.rng import randomness, stream

__all__ = ["distilled"]

_HIDDEN = 128
_RATE = 2e-3
_ROUNDS = {"full": 100, "quick": 50}


def distilled(context: Context) -> nn.Module:
    """Return a network without spikes that imitates the model on and around the samples.

    It is trained on the classes that the model predicts at random points of the threat set and of
    a ball twice as large.

    Source: Papernot et al., "Practical black-box attacks against machine learning", 2017
        (arXiv:1602.02697).
    """
    return context.once("distilled", lambda: _learn(context))


def _learn(context: Context) -> nn.Module:
    pixels = context.x[0].numel()
    student = nn.Sequential(
        nn.Flatten(), _linear(context, 0, pixels, _HIDDEN), nn.ReLU(),
        _linear(context, 1, _HIDDEN, _HIDDEN), nn.ReLU(),
        _linear(context, 2, _HIDDEN, context.classes),
    )  # fmt: skip
    optimiser = torch.optim.Adam(student.parameters(), lr=_RATE)
    for number in range(_ROUNDS[context.budget]):
        for index in context.batches():
            x, answers = _asked(context, index, number)
            optimiser.zero_grad()
            with torch.enable_grad():
                functional.cross_entropy(student(x - 0.5), answers).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return _Centred(student).eval()


class _Centred(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x - 0.5)
        return logits


def _asked(context: Context, index: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return points around some samples, and the classes that the model predicts there."""
    streams = context.draws(index, "substitute").fork("round", number)
    x = context.x[index]
    points = context.threat.sample(x, streams)
    if number % 2:
        points = (x + 2 * (points - x)).clamp(0, peak_of(context.threat))
    with evaluating(context.model), randomness(context.model, streams), torch.no_grad():
        answers: Tensor = context.model(points.to(context.device)).argmax(1)
    return points, answers.cpu()


def _linear(context: Context, number: int, width: int, out: int) -> nn.Linear:
    """Return a layer with weights from the audit's seed, without the global generator."""
    layer = nn.Linear(width, out, device="meta").to_empty(device="cpu")
    generator = stream(context.seed, "audit", "substitute", number)
    with torch.no_grad():
        layer.weight.normal_(0, (2 / width) ** 0.5, generator=generator)
        layer.bias.zero_()
    return layer

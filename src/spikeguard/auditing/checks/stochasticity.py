"""G19, S11: is the model deterministic, or random and attacked as such?"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from spikeguard.attacks import Backprop
from spikeguard.auditing.check import judged
from spikeguard.auditing.context import (EOT, Context)
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.tolerances import (half_width, percent)

__all__ = ["determinism", "source_of_change"]

_SAMPLES = 64
_FORWARDS = 5
_DISTANCE = 1e-4


def determinism(context: Context) -> Finding:
    """The model is deterministic, or random and attacked as such.

    A deterministic model answers equally every time. A random one says so (``stochastic``), so that
    adversarial inputs are scored on fresh draws. The gradient of one draw may point anywhere, so
    PGD along the mean gradient of several draws must not be clearly stronger than along one.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); Croce and Hein, 2020 (AutoAttack's
    flag for random defences).
    """
    return _averaged(context) if context.stochastic else _repeated(context)


def source_of_change(context: Context, index: Tensor) -> Literal["noise", "state"]:
    """Tell noise from state: noise repeats itself when all generators start from the same numbers.

    The global generator is left where it was.
    """
    cuda = [context.device] if context.device.type == "cuda" else []

    def seeded() -> Tensor:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(0)
            return context.logits(index)

    first = seeded()
    context.logits(index, mirrored=True)
    return "noise" if torch.equal(first, seeded()) else "state"


def _repeated(context: Context) -> Finding:
    """Compare several forward passes of a model that says it is deterministic."""
    index = torch.arange(min(_SAMPLES, len(context)))
    logits = [context.logits(index, name=f"forward {i}") for i in range(_FORWARDS)]
    unit = torch.stack([normalize(z.double(), dim=1) for z in logits])
    distance = float((unit - unit[0]).norm(dim=2).max())
    classes = torch.stack([z.argmax(1) for z in logits])
    changed = int((classes != classes[0]).any(0).sum())
    failed = not distance <= _DISTANCE or changed > 0
    source = source_of_change(context, index) if failed else None
    fault = "the model answers differently each time, and not because of noise: it keeps state"
    remedy = "reset all membrane potentials at the start of every forward pass; see S1"
    if source == "noise":
        fault = (
            "the model is random but does not say so: its chance errors count as successes of the "
            "attack, and its noise hides the gradient"
        )
        remedy = (
            "give it an attribute stochastic = True, so that inputs are scored on fresh draws and "
            "gradients averaged over draws (EoT)"
        )
    return judged(
        "G19",
        determinism,
        failed=failed,
        measured=f"{_FORWARDS} forward passes differ by {distance:.2g} at most; {changed} of "
        f"{len(index)} samples change class",
        threshold=f"normalised logits within {_DISTANCE:g}, and no class changes",
        sound="the same input always gets the same answer",
        fault=fault,
        remedy=remedy,
        evidence={"distance": distance, "changed_class": changed, "source": source},
    )


def _averaged(context: Context) -> Finding:
    """Compare PGD along the gradient of one draw with PGD along the mean of several."""
    single = context.attacked(context.pgd(gradient=Backprop())).accuracy
    mean = context.attacked(context.pgd()).accuracy
    room = half_width(single, len(context))
    return judged(
        "G19",
        determinism,
        failed=mean < single - room,
        measured=f"random; PGD leaves {percent(single)} with 1 draw a step, {percent(mean)} with "
        f"{EOT}",
        threshold=f"{EOT} draws lower accuracy by at most {100 * room:.1f} points",
        sound=f"the noise does not hide the gradient: {EOT} draws a step find no more than one",
        fault=f"the noise hides the gradient: with {EOT} draws a step PGD leaves {percent(mean)} "
        f"instead of {percent(single)}",
        remedy="use EoT: average the gradient over draws (eot=8 or more) in every attack",
        evidence={"one_draw": single, "eot": mean, "draws": EOT},
    )

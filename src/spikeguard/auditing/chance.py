"""G19, S11: is the model deterministic, or random and attacked as such?"""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor

from spikeguard.attacks import Backprop
from spikeguard.auditing.context import EOT, Context, title
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.shares import half_width, percent

__all__ = ["Source", "determinism", "source_of_change"]

_SAMPLES = 64
_FORWARDS = 5
_DISTANCE = 1e-4


class Source(Enum):
    """Why a model answers the same question differently."""

    NOISE = "noise"
    STATE = "state"


def determinism(context: Context) -> Finding:
    """The model is deterministic, or random and attacked as such.

    A deterministic model answers equally every time. A random one says so (``stochastic``), so that every
    adversarial input is scored on fresh draws; and against it a gradient of one draw may point anywhere,
    so PGD with the gradient averaged over draws must not be clearly stronger.

    Source: Athalye, Carlini and Wagner, 2018 (arXiv:1802.00420); AutoAttack's flag for random defences.
    """
    heading = title(determinism)
    if context.stochastic:
        return _averaged(context, heading)
    index = torch.arange(min(_SAMPLES, len(context)))
    logits = [context.logits(index, name=f"forward {i}") for i in range(_FORWARDS)]
    unit = [torch.nn.functional.normalize(z.double(), dim=1) for z in logits]
    distance = max(float((z - unit[0]).norm(dim=1).max()) for z in unit)
    classes = torch.stack([z.argmax(1) for z in logits])
    changed = int((classes != classes[0]).any(0).sum())
    failed = not distance <= _DISTANCE or changed > 0
    evidence: dict[str, object] = {"distance": distance, "changed_class": changed}
    meaning = remedy = ""
    if failed:
        source = source_of_change(context, index)
        evidence["source"] = source.value
        if source is Source.NOISE:
            meaning = (
                "the model is random but does not say so, so chance errors count as success of the attack "
                "and noise hides the gradient"
            )
            remedy = (
                "give it an attribute stochastic = True: inputs are then scored on fresh draws and "
                "gradients averaged (EoT)"
            )
        else:
            meaning = (
                "the model answers differently each time, and not because of noise: it keeps state"
            )
            remedy = "reset all membrane potentials at the start of every forward pass; see S1"
    return Finding(
        "G19",
        heading,
        "fail" if failed else "pass",
        f"{_FORWARDS} forward passes differ by up to {distance:.2g}, {changed} samples change class",
        f"normalised logits within {_DISTANCE:g}, no class changes",
        meaning,
        remedy,
        evidence,
    )


def source_of_change(context: Context, index: Tensor) -> Source:
    """Tell noise from state: noise repeats itself when all generators start from the same numbers.

    The global generator is put back to where it was.
    """
    cuda = [context.device] if context.device.type == "cuda" else []

    def seeded() -> Tensor:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(0)
            return context.logits(index)

    first = seeded()
    context.logits(index, mirrored=True)
    again = seeded()
    return Source.NOISE if torch.equal(first, again) else Source.STATE


def _averaged(context: Context, heading: str) -> Finding:
    """Compare PGD along the gradient of one draw with PGD along the mean of several."""
    single = context.attacked(context.pgd(gradient=Backprop())).accuracy
    mean = context.attacked(context.pgd()).accuracy
    room = half_width(single, len(context))
    failed = mean < single - room
    return Finding(
        "G19",
        heading,
        "fail" if failed else "pass",
        f"random; PGD leaves {percent(single)} with one draw a step, {percent(mean)} with {EOT}",
        f"{EOT} draws lower accuracy by at most {percent(room)}",
        f"the noise hides the gradient: averaged over {EOT} draws the attack leaves {percent(mean)} instead "
        f"of {percent(single)}"
        if failed
        else "",
        "use EoT: average the gradient over draws (eot=8 or more) in every attack"
        if failed
        else "",
        {"one_draw": single, "eot": mean, "draws": EOT},
    )

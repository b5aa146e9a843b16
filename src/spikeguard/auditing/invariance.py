"""S1, S20: does a sample's result depend on that sample alone?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikeguard.auditing.chance import Source, source_of_change
from spikeguard.auditing.context import Context, title
from spikeguard.auditing.findings import Finding
from spikeguard.auditing.shares import percent

__all__ = ["batch_invariance"]

_SAMPLES = 40
_ALONE = 20
_MOVED = 0.05  # rounding differs with the batch size; a spike at the very threshold may flip
_THRESHOLD = f"logits move for at most {percent(_MOVED)} of the samples"


def batch_invariance(context: Context) -> Finding:
    """A sample's logits depend on that sample alone.

    The same samples are shown again after another batch (does state survive a call?), alone, in other
    company and in another order (do samples share statistics?), all in evaluation mode and with the same
    noise for the same sample. Accuracies measured on a model that fails are accuracies of its batches.

    Source: known faults of stateful spiking networks and of evaluations in training mode.
    """
    heading = title(batch_invariance)
    n = min(_SAMPLES, len(context))
    if n < 2:
        return Finding("S1", heading, "not run", "needs at least 2 samples")
    index = torch.arange(n)
    try:
        moved = _moved(context, index)
        source = source_of_change(context, index) if moved["after another batch"] else None
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        return _failure(
            heading,
            f"the model raises when the batch changes: {str(error).splitlines()[0]}",
            "the model keeps state between calls, and it does not fit the next batch",
            "reset all membrane potentials at the start of every forward pass",
            {},
        )
    evidence = {"moved": moved, "samples": n}
    name = max(moved, key=lambda variant: moved[variant])
    measured = f"logits move for {percent(moved[name])} of the samples {name}"
    if moved[name] <= _MOVED:
        return Finding("S1", heading, "pass", measured, _THRESHOLD, evidence=evidence)
    if source is Source.NOISE:
        return Finding(
            "S1",
            heading,
            "not run",
            "the noise does not come from per-sample streams, so batches cannot be compared; see G19",
            _THRESHOLD,
            evidence=evidence,
        )
    if source is Source.STATE:
        return _failure(
            heading,
            measured,
            "what the model saw before changes what it says now, so its accuracy depends on the order of "
            "the evaluation",
            "reset all membrane potentials and counters at the start of every forward pass",
            evidence,
        )
    training = _in_training_mode(context, index)
    evidence["in_training_mode"] = training
    where = f": {', '.join(training[:3])} normalise with batch statistics" if training else ""
    return _failure(
        heading,
        measured,
        f"a sample's result depends on its neighbours in the batch{where}",
        "put the model, batch norm above all, in evaluation mode inside forward too",
        evidence,
    )


def _moved(context: Context, index: Tensor) -> dict[str, float]:
    """Return, for every way to show the samples again, the share whose logits change."""
    n = len(index)
    reference = context.logits(index)
    context.logits(index[: n // 2 + 1], mirrored=True)
    after = context.logits(index)
    alone = torch.cat([context.logits(i) for i in index[:_ALONE].split(1)])
    return {
        "after another batch": _share(after, reference),
        "when shown alone": _share(alone, reference[:_ALONE]),
        "in other company": _share(context.logits(index[: n // 2]), reference[: n // 2]),
        "in another order": _share(context.logits(index.flip(0)).flip(0), reference),
    }


def _share(logits: Tensor, reference: Tensor) -> float:
    """Return the share of samples whose logits or class differ by more than rounding."""
    close = torch.isclose(logits, reference, rtol=1e-4, atol=1e-5, equal_nan=True).all(1)
    same = logits.argmax(1) == reference.argmax(1)
    return float((~(close & same)).double().mean())


def _in_training_mode(context: Context, index: Tensor) -> list[str]:
    """Return the names of normalising layers that run in training mode although the model is in eval."""
    found: set[str] = set()
    handles = []
    for name, module in context.model.named_modules():
        if isinstance(module, _BatchNorm):

            def note(module: nn.Module, inputs: object, name: str = name) -> None:
                if module.training:
                    found.add(name)

            handles.append(module.register_forward_pre_hook(note))
    try:
        context.logits(index)
    finally:
        for handle in handles:
            handle.remove()
    return sorted(found)


def _failure(
    heading: str, measured: str, meaning: str, remedy: str, evidence: dict[str, object]
) -> Finding:
    return Finding("S1", heading, "fail", measured, _THRESHOLD, meaning, remedy, evidence)

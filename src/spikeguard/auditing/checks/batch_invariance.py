"""Do the logits of a sample depend on that sample alone? Check S1."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spikeguard.attacks.base import AttackError
from spikeguard.auditing.check import CheckOutcome, judged, not_run, reason
from spikeguard.auditing.context import Context
from spikeguard.auditing.measurements.repeatability import source_of_change
from spikeguard.auditing.tolerances import percent

__all__ = ["batch_invariance"]

_SAMPLES = 40
_ALONE = 20
_MOVED = 0.05  # rounding depends on the batch size and can flip a spike at the threshold
_AFTER = "after another batch"


def batch_invariance(context: Context) -> CheckOutcome:
    """A sample's logits depend on that sample alone.

    The same samples run again after another batch (does state survive a call?), alone, with fewer
    others and in another order (do samples share statistics?), all in evaluation mode and with the
    same noise for the same sample. If a model fails, its accuracy depends on the batches.

    Source: faults reported against stateful spiking networks and evaluations in training mode.
    """
    n = min(_SAMPLES, len(context))
    if n < 2:
        return _not_run("needs at least 2 samples")
    index = torch.arange(n)
    try:
        moved = _moved(context, index)
        source = source_of_change(context, index) if moved[_AFTER] else None
    except RuntimeError as error:
        if isinstance(error, AttackError | torch.OutOfMemoryError):
            raise
        return _failure(
            f"raises when the batch changes: {reason(error)}",
            "the model does not accept batches of any size, as if it kept state between calls",
            "reset all membrane potentials at the start of every forward pass",
            {},
        )
    most = max(moved, key=lambda variant: moved[variant])
    measured = "no logits change, whatever the batch"
    if moved[most]:
        measured = f"logits change for {percent(moved[most])} of the samples {most}"
    evidence = {"moved": moved, "samples": n, "source": source}
    if moved[most] <= _MOVED:
        return _finding(False, measured, "", "", evidence)
    if source == "noise":
        return _not_run("its noise has no stream for each sample, so batches cannot be compared")
    if source == "state":
        return _failure(
            measured,
            "earlier batches change the logits of later ones, so the accuracy depends on the order "
            "of the evaluation",
            "reset all membrane potentials and counters at the start of every forward pass",
            evidence,
        )
    training = _in_training_mode(context, index)
    where = f": {', '.join(training[:3])} in training mode" if training else ""
    return _failure(
        measured,
        f"a sample's result depends on its neighbours in the batch{where}",
        "keep every layer, above all batch norm, in evaluation mode inside forward as well",
        {**evidence, "in_training_mode": training},
    )


def _moved(context: Context, index: Tensor) -> dict[str, float]:
    """Return the share of samples whose logits change, for each way to run them again."""
    n = len(index)
    reference = context.logits(index)
    context.logits(index[: n // 2 + 1], mirrored=True)
    after = context.logits(index)
    alone = torch.cat([context.logits(index[i : i + 1]) for i in range(min(_ALONE, n))])
    return {
        _AFTER: _share(after, reference),
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
    """Return the batch norms that run in training mode although the model is in evaluation mode."""
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
    measured: str, fault: str, remedy: str, evidence: Mapping[str, object]
) -> CheckOutcome:
    return _finding(True, measured, fault, remedy, evidence)


def _finding(
    failed: bool, measured: str, fault: str, remedy: str, evidence: Mapping[str, object]
) -> CheckOutcome:
    return judged(
        failed=failed,
        measured=measured,
        threshold=f"logits change for at most {percent(_MOVED)} of the samples",
        sound="results do not depend on batch size, order or earlier batches",
        fault=fault,
        remedy=remedy,
        evidence=evidence,
    )


def _not_run(why: str) -> CheckOutcome:
    return not_run(why)

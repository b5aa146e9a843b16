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
from spikeguard.auditing.tolerances import ROUNDING, differs, percent
from spikeguard.system.model_errors import is_model_error

__all__ = ["batch_invariance"]

_AFTER = "after another batch"


def batch_invariance(context: Context) -> CheckOutcome:
    """A sample's logits depend on that sample alone.

    The same samples run again after another batch (does state survive a call?), alone, with fewer
    others and in another order (do samples share statistics?), all in evaluation mode and with the
    same noise for the same sample. If a model fails, its accuracy depends on the batches.

    Source: faults reported against stateful spiking networks and evaluations in training mode.
    """
    n = len(context)
    if n < 2:
        return _not_run("needs at least 2 samples")
    index = torch.arange(n)
    try:
        changed = _moved(context, index)
        moved = {variant: float(each.double().mean()) for variant, each in changed.items()}
        source = source_of_change(context, index) if moved[_AFTER] else None
    except Exception as error:
        if isinstance(error, AttackError) or not is_model_error(error):
            raise
        return _failure(
            f"raises when the batch changes: {reason(error)}",
            "the model does not accept batches of any size, as if it kept state between calls",
            "reset all membrane potentials at the start of every forward pass",
            {},
        )
    most = max(moved, key=lambda variant: moved[variant])
    share = context.share(int(torch.stack(list(changed.values())).any(0).sum()))
    measured = f"no logits of {n} samples change, whatever the batch; {share}"
    if moved[most]:
        measured = f"logits change for {share} of {n} samples, most {most}"
    failed = differs(share)
    evidence = {"moved": moved, "samples": n, "source": source}
    if not failed:
        return _finding(failed, measured, "", "", evidence)
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


def _moved(context: Context, index: Tensor) -> dict[str, Tensor]:
    """Return whether each sample's logits change [N], for each way to run the samples again."""
    n = len(index)
    reference = context.logits(index)
    context.logits(index[: n // 2 + 1], mirrored=True)
    after = context.logits(index)
    alone = torch.cat([context.logits(index[i : i + 1]) for i in range(n)])
    halves = torch.cat([context.logits(part) for part in torch.split(index, (n + 1) // 2)])
    return {
        _AFTER: _differ(after, reference),
        "when shown alone": _differ(alone, reference),
        "in other company": _differ(halves, reference),
        "in another order": _differ(context.logits(index.flip(0)).flip(0), reference),
    }


def _differ(logits: Tensor, reference: Tensor) -> Tensor:
    """Return whether each sample's logits or class differ by more than rounding [N]."""
    close = torch.isclose(logits, reference, rtol=1e-4, atol=1e-5, equal_nan=True).all(1)
    same = logits.argmax(1) == reference.argmax(1)
    return ~(close & same)


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
    failed: bool | None, measured: str, fault: str, remedy: str, evidence: Mapping[str, object]
) -> CheckOutcome:
    return judged(
        failed=failed,
        measured=measured,
        threshold=f"logits change for at most {percent(ROUNDING)} of the samples",
        sound="results do not depend on batch size, order or earlier batches",
        fault=fault,
        remedy=remedy,
        evidence=evidence,
    )


def _not_run(why: str) -> CheckOutcome:
    return not_run(why)

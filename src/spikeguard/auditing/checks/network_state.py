"""Is a result independent of earlier batches, of T and of the batch? Checks S2, S3, S20."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, AttackError
from spikeguard.attacks.gradients.base import EoT
from spikeguard.attacks.model_access import classify
from spikeguard.attacks.searches.pgd import PGD
from spikeguard.auditing.check import CheckOutcome, does_not_apply, judged, reason
from spikeguard.auditing.context import EOT, Context
from spikeguard.auditing.measurements.attack_variants import RULES
from spikeguard.auditing.tolerances import ROUNDING, differs, percent, worst_of
from spikeguard.evaluation.estimates import Estimate
from spikeguard.models.snn import SNN
from spikeguard.neurons.base import Neuron
from spikeguard.neurons.modes import record
from spikeguard.system.model_errors import is_model_error

__all__ = ["attack_ignores_the_batch", "same_number_of_steps", "starts_at_rest"]

_SAMPLES = 12
_STEPS = 3
_PIXELS = 0.05  # share of an input's pixels below which it counts as the same
_IN_BATCHES = 48  # samples of S20, enough to show that at most 12 % differ


def starts_at_rest(context: Context) -> CheckOutcome:
    """No state of one forward pass changes the next one.

    Compares the tensors that modules hold as attributes or buffers before and after a forward pass.
    A module may hold state if the next pass clears it: after the same samples, the held tensors and
    the logits must be the same whatever ran before, and batches of another size must not raise.

    Source: faults reported against stateful spiking networks without a reset.
    """
    n = min(_SAMPLES, len(context))
    index = torch.arange(n)
    before = _kept(context.model)
    fault, moved = "", 0
    survived: list[str] = []
    try:
        reference = _seeded(context, index)
        first = _kept(context.model)
        context.logits(index, mirrored=True)
        again = _seeded(context, index)
        second = _kept(context.model)
        moved = int((~torch.isclose(again, reference, rtol=1e-4, atol=1e-5).all(1)).sum())
        survived = [k for k in _differ(first, second) if n in second[k].shape]
        context.logits(index[: n // 2 + 1])
    except Exception as error:
        if isinstance(error, AttackError) or not is_model_error(error):
            raise
        fault = reason(error)
    keepers = _differ(before, _kept(context.model))
    where = f" ({', '.join((survived or keepers)[:3])})" if keepers else ""
    return judged(
        failed=bool(fault or survived) or (moved > 0 and bool(keepers)),
        measured=f"{len(keepers)} tensors are held after a forward pass{where}; "
        + (
            fault
            or f"after other samples {len(survived)} of them and the logits of {moved} of {n} "
            "samples differ"
        ),
        threshold="the same potentials and logits after any other batch, and no error with another "
        "batch size",
        sound="every forward pass starts at rest",
        fault=f"state survives a forward pass{where}, so each batch depends on the one before",
        remedy="clear it at the start of every forward pass: wrap the network so that forward "
        "calls its reset, as spikeguard.foreign does",
        evidence={"kept": keepers, "survived": survived, "moved": moved, "error": fault},
    )


def same_number_of_steps(context: Context) -> CheckOutcome:
    """The network runs the same number of steps under attack as in scoring.

    Counts the steps of every spiking layer in a gradient of the attack and in a forward pass in
    evaluation mode. The evidence also holds the accuracy on PGD's inputs with T/2, T and 2T steps.

    Source: SpikeGuard's own.
    """
    index = torch.arange(min(_SAMPLES, len(context)))
    with record(context.model) as trace:
        context.logits(index)
        scored = {name: len(layer.v) for name, layer in trace.items()}
        with context.searching(index) as (x, y), torch.enable_grad():
            classify(context.model, x.detach().clone().requires_grad_(), y)
        attacked = {name: len(layer.v) for name, layer in trace.items()}
    if not scored:
        return does_not_apply("the model has no spiking layers whose steps could be counted")
    differ = [n for n in scored | attacked if scored.get(n) != attacked.get(n)]
    right = _right_at_other_steps(context)
    steps = sorted(set(scored.values()))
    shown = ", ".join(f"{percent(share)} at T = {T}" for T, share in right.items())
    return judged(
        failed=bool(differ),
        measured=f"T = {', '.join(map(str, steps))} scored, "
        f"{', '.join(map(str, sorted(set(attacked.values()))))} attacked"
        + (f"; PGD's inputs leave {shown}" if shown else ""),
        threshold="the same T in every layer",
        sound="the attacked network is the scored one",
        fault=f"{', '.join(differ[:3])} runs another number of steps under attack than in "
        "scoring, so the attack targets another network",
        remedy="use the same T for both",
        evidence={
            "scored": scored,
            "attacked": attacked,
            "right": {str(k): v for k, v in right.items()},
        },
    )


def attack_ignores_the_batch(context: Context) -> CheckOutcome:
    """An attack gives a sample the same result in every batch.

    A short PGD with the network's own gradient, and with every rule of S5, runs on the same samples
    together and again in reverse order, one half at a time, with the same random numbers for the
    same sample. S1 tests the model in this way; this check tests the attacks.

    Source: SpikeGuard's own; batch statistics in PDSG's public code and shared draws in
    AutoAttack's Square are the known cases.
    """
    n = min(_IN_BATCHES, len(context))
    if n < 2:
        return does_not_apply("there is only one sample")
    index = torch.arange(n)
    gradients = {"own": context.gradient()}
    if any(isinstance(module, Neuron) for module in context.model.modules()):
        gradients |= {
            name: EoT(EOT, rule) if context.stochastic else rule for name, rule in RULES.items()
        }
    moved, shares = {}, {}
    for name, gradient in gradients.items():
        attack = PGD(context.threat, steps=_STEPS, gradient=gradient)
        whole = _made(context, attack, index)
        halves = torch.split(index.flip(0), (n + 1) // 2)
        again = torch.cat([_made(context, attack, half) for half in halves]).flip(0)
        pixels = _moved(again, whole)
        moved[name] = float(pixels.mean())
        shares[name] = Estimate.share(int((pixels > _PIXELS).sum()), n, context.looks)
    worst = max(moved, key=lambda name: moved[name])
    return judged(
        failed=worst_of(*(differs(share) for share in shares.values())),
        measured=f"{shares[worst]} of {n} inputs differ at most ({worst})",
        threshold=f"at most {percent(ROUNDING)} differ in more than {percent(_PIXELS)} of their "
        "pixels",
        sound="results do not depend on batch size or order",
        fault=f"PGD ({worst}) gives samples different results in another batch, so its numbers "
        "cannot be reproduced",
        remedy="draw and count per sample; repair S1 first if it fails",
        evidence={"moved": moved, "samples": n},
    )


def _kept(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of all tensors that modules hold, except parameters."""
    kept = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    for name, module in model.named_modules():
        held = {
            **vars(module),
            **vars(module).get("_memories", {}),
        }  # where SpikingJelly keeps them
        for attribute, value in held.items():
            if isinstance(value, Tensor):
                kept[f"{name}.{attribute}".lstrip(".")] = value.detach().clone()
    return kept


def _differ(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    """Return the names of new or changed tensors."""
    return sorted(
        name
        for name, value in after.items()
        if name not in before
        or before[name].shape != value.shape
        or not _close(before[name], value)
    )


def _close(one: Tensor, other: Tensor) -> bool:
    return bool(torch.isclose(one, other, rtol=1e-4, atol=1e-5, equal_nan=True).all())


def _seeded(context: Context, index: Tensor) -> Tensor:
    """Return the logits with the global generator seeded, so that noise is not taken for state."""
    cuda = [context.device] if context.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(0)
        return context.logits(index)


def _right_at_other_steps(context: Context) -> dict[int, float]:
    """Return the accuracy on PGD's inputs at T/2, T and 2T, if the network can run them."""
    network = next((m for m in context.model.modules() if isinstance(m, SNN)), None)
    if network is None:
        return {}
    x_adv = context.attacked(context.pgd()).x_adv
    right = {}
    for T in sorted({max(1, network.T // 2), network.T, 2 * network.T}):
        try:
            with _steps(network, T):
                hits = [_hits(context, x_adv, index) for index in context.batches()]
        except (RuntimeError, ValueError):  # parameters per step fit one T only
            continue
        right[T] = sum(hits) / len(context)
    return right


@contextmanager
def _steps(network: SNN, T: int) -> Iterator[None]:
    before = network.T
    try:
        network.T = T
        yield
    finally:
        network.T = before


def _hits(context: Context, x: Tensor, index: Tensor) -> int:
    y = context.y[index].to(context.device)
    with context.searching(index), torch.no_grad():
        return int((classify(context.model, x[index].to(context.device), y).argmax(1) == y).sum())


def _made(context: Context, attack: Attack, index: Tensor) -> Tensor:
    x, y = context.x[index].to(context.device), context.y[index].to(context.device)
    return attack(context.model, x, y, generator=context.draws(index, "batch")).cpu()


def _moved(one: Tensor, other: Tensor) -> Tensor:
    """Return the share of each input's pixels that differ by more than rounding [N]."""
    differ = ~torch.isclose(one, other, rtol=1e-4, atol=1e-5)
    return differ.double().flatten(1).mean(1)

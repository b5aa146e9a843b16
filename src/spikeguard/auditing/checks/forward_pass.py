"""Is the forward pass one plain, differentiable computation? Checks G16, G21, G22."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.model_access import classify
from spikeguard.auditing.check import CheckOutcome, judged, not_run, reason
from spikeguard.auditing.context import Context
from spikeguard.system.model_errors import is_model_error

__all__ = ["no_backward_inside", "no_loop_inside", "whole_graph"]

_SAMPLES = 8
_MOST = 10  # classes whose gradients are computed one by one


def whole_graph(context: Context) -> CheckOutcome:
    """The computation graph leads from every logit to the input.

    The gradient of each logit with respect to the input must exist, and computing it must not
    raise. NumPy code, a detach or a block under no_grad cuts the graph, so an attack follows only
    the remaining part. G15 covers gradients that exist and are zero.

    Source: Pintor et al., "Indicators of attack failure", 2022 (arXiv:2106.09947).
    """
    index = torch.arange(min(_SAMPLES, len(context)))
    fault, cut = "", []
    with context.searching(index) as (x, y), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        try:
            logits = classify(context.model, x, y)
            asked = range(min(_MOST, logits.shape[1]))
            for k in asked:
                found = None
                if logits.requires_grad:
                    (found,) = torch.autograd.grad(
                        logits[:, k].sum(), x, retain_graph=True, allow_unused=True
                    )
                cut += [k] if found is None else []
        except RuntimeError as error:
            if isinstance(error, AttackError) or not is_model_error(error):
                raise
            fault = reason(error)
    measured = fault or (
        f"no gradient reaches the input from {len(cut)} of {len(asked)} logits"
        if cut
        else f"the input has a gradient from each of {len(asked)} logits"
    )
    return judged(
        failed=bool(cut or fault),
        measured=measured,
        threshold="a gradient from every logit, and no error in the backward pass",
        sound="nothing cuts the graph between the logits and the input",
        fault="the graph from the logits to the input is cut, so gradient attacks cannot work",
        remedy="remove detach, no_grad and NumPy from forward, or give the part a straight-through "
        "gradient (BPDA)",
        evidence={"cut": cut, "error": fault},
    )


def no_backward_inside(context: Context) -> CheckOutcome:
    """The forward pass contains no backward pass.

    A model that differentiates inside forward, for example to purify its input, optimises during
    the attack, and its gradient is not that of the whole computation. The check counts the calls
    of torch's autograd engine in one forward pass without and one with gradients, in evaluation
    mode.

    Source: Croce and Hein, 2020 (AutoAttack's flag for dynamic defences), who trace the
    interpreter; here the entry points of autograd are counted.
    """
    index = torch.arange(min(_SAMPLES, len(context)))
    calls: Counter[str] = Counter()
    for mode in (torch.no_grad, torch.enable_grad):
        with context.searching(index) as (x, y), mode(), _watching(calls):
            classify(context.model, x.detach().clone().requires_grad_(), y)
    total = sum(calls.values())
    return judged(
        failed=total > 0,
        measured=f"{total} backward passes inside 2 forward passes",
        threshold="none",
        sound="the forward pass is one computation",
        fault="the model runs backward passes inside its forward pass: it optimises during the "
        "attack, and its gradient is not that of the whole computation",
        remedy="differentiate through the whole inner computation, or bypass it (BPDA), and "
        "report this",
        evidence=dict(calls),
    )


def no_loop_inside(context: Context) -> CheckOutcome:
    """The forward pass runs the same modules for every input, and optimises nothing.

    Three signs of a loop with a stopping criterion: a module is called more often for one input
    than for another, an optimiser steps, or forward enables gradients although its caller disabled
    them. Loops of a fixed length, such as the loop over time steps, are no fault.

    Source: RobustBench's rules of admission: no optimisation loop in the forward pass.
    """
    index = torch.arange(min(_SAMPLES, len(context)))
    seen: list[Counter[str]] = []
    marks: Counter[str] = Counter()
    with context.searching(index) as (x, _), torch.no_grad(), _marked(marks, context.model):
        top = max(1.0, float(x.max()))
        for shown in (x, top - x, torch.full_like(x, 0.5), torch.zeros_like(x)):
            with _counted(context.model) as calls:
                context.model(shown)
            seen.append(calls)
    names = sorted(set().union(*seen))
    vary = [name for name in names if len({calls[name] for calls in seen}) > 1]
    if not names and not marks:
        return not_run("the model has no submodules whose calls could be counted")
    faults = [f"{', '.join(vary[:3])} called more often for some inputs"] if vary else []
    faults += [f"{what} {number} times" for what, number in marks.items()]
    most = max((max(calls.values(), default=0) for calls in seen), default=0)
    return judged(
        failed=bool(faults),
        measured="; ".join(faults) or f"each module is called equally often, at most {most} times",
        threshold="equal call counts for every input, no optimiser step, no gradients enabled",
        sound="the forward pass has a fixed length",
        fault="the length of the forward pass depends on its input, or it optimises "
        f"({'; '.join(faults[:1])}), which the gradient does not show",
        remedy="unroll the loop to its full length, bypass it (BPDA), or attack with Square",
        evidence={"vary": vary, "marks": dict(marks), "most_calls": most},
    )


@contextmanager
def _watching(calls: Counter[str]) -> Iterator[None]:
    """Count the calls of the autograd engine inside the block, through any entry point."""

    def counting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            calls[name] += 1
            return original(*args, **options)

        return counted

    entry = "_engine_run_backward"  # the function that grad, backward and torch.func share
    names = [entry] if hasattr(torch.autograd, entry) else ["grad", "backward"]
    with ExitStack() as stack:
        for name in names:
            original = getattr(torch.autograd, name)
            stack.callback(setattr, torch.autograd, name, original)
            setattr(torch.autograd, name, counting(name.lstrip("_"), original))
        yield


@contextmanager
def _marked(marks: Counter[str], model: nn.Module) -> Iterator[None]:
    """Count optimiser steps and modules that run with gradients enabled inside the block."""

    def stepped(*_: object) -> None:
        marks["an optimiser steps"] += 1

    def note(module: nn.Module, inputs: object) -> None:
        if torch.is_grad_enabled():
            marks["a module runs with gradients turned on"] += 1

    handles = [register_optimizer_step_pre_hook(stepped)]
    handles += [m.register_forward_pre_hook(note) for m in model.modules() if m is not model]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _counted(model: nn.Module) -> Iterator[Counter[str]]:
    """Count the calls of every submodule inside the block."""
    calls: Counter[str] = Counter()
    handles = []
    for name, module in model.named_modules():
        if name:

            def note(module: nn.Module, inputs: object, name: str = name) -> None:
                calls[name] += 1

            handles.append(module.register_forward_pre_hook(note))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()

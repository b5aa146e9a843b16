"""Present images or event frames to a foreign network over T steps, and detect how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeguard.models.adapters.frameworks.base import Framework
from spikeguard.models.adapters.step_counts import Calls, Layout, counting, read_steps
from spikeguard.models.adapters.step_state import StateArguments
from spikeguard.models.adapters.trial_errors import (
    ImagesRefused,
    Reached,
    ResultRejected,
    Trial,
    explained,
    reaching,
)

_REFUSALS = (
    *(RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError),
    ImportError,  # a back end that is not installed
)

__all__ = ["Found", "ImagesRefused", "Presentation", "present", "present_frames", "probe", "taken"]

Presentation = Literal["sequence", "steps", "inside"]


@dataclass(frozen=True)
class Found:
    """Result of the trial calls.

    Attributes:
        presentation: How images are presented.
        own_readout: Whether the model returns [B, K], not outputs over time.
        batch_first: Whether it returns [B, T, K], not [T, B, K].
        counted: Whether its steps were counted: False if it loops over time itself, has no layer
            that could be counted, and returns [B, K].
        layouts: Where time is in the tensors of each layer that takes all steps in one call.
    """

    presentation: Presentation
    own_readout: bool
    batch_first: bool
    counted: bool
    layouts: Mapping[nn.Module, Layout | None]


@dataclass(frozen=True)
class _Shown:
    """One trial call: output tensor, whole result of the last call of the model, layers' calls."""

    out: Tensor
    result: Any
    calls: Calls


def taken(result: Any, element: int) -> Tensor:
    """Return the tensor in a model's result: one element of a tuple; a list of steps is stacked.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(result, tuple):
        if not -len(result) <= element < len(result):
            raise ResultRejected(
                f"foreign: the model returns {len(result)} outputs, got {element=}."
            )
        result = result[element]
    if isinstance(result, list) and result and all(isinstance(r, Tensor) for r in result):
        result = torch.stack(result)
    if isinstance(result, Mapping):
        keys = ", ".join(map(repr, result))
        raise ResultRejected(
            f"foreign: the model returns a {type(result).__name__} with the keys {keys}, not a "
            "tensor; return the spikes or logits alone, or in a tuple."
        )
    if not isinstance(result, Tensor):
        raise ResultRejected(f"foreign: the model returns {type(result).__name__}, not a tensor.")
    return result


def present(
    model: nn.Module, x: Tensor, T: int, how: Presentation, output: int, *, temporal: bool = False
) -> Tensor:
    """Present x [B, ...] and return [T, B, K], or [B, K] if the model has its own readout.

    Images are repeated T times. Where x is ``temporal``, [B, T, ...], frame t is shown at step t: a
    "sequence" is [T, B, ...], and a model that loops over time itself gets [B, T, ...].

    The model gets copies, because some networks write to their argument or change its shape.
    """
    if how == "inside":
        return taken(model(x.clone()), output)
    frames = x.transpose(0, 1) if temporal else x.unsqueeze(0).expand(T, *x.shape)
    return present_frames(model, frames, how, output)


def present_frames(model: nn.Module, frames: Tensor, how: Presentation, output: int) -> Tensor:
    """Present one image per step, frames [T, B, ...]; returns the same as :func:`present`.

    A model that is called step by step gets the states that it returned at the step before, if its
    forward takes them.

    Raises:
        ValueError: If the model loops over time itself, so that it takes one image alone; or if it
            is called step by step, and returns more or fewer states than it takes.
    """
    if how == "inside":
        raise ValueError("foreign: the model loops over time itself; it takes no image per step.")
    if how == "sequence":
        return taken(model(frames.clone(memory_format=torch.contiguous_format)), output)
    states = StateArguments.of(model)
    steps: list[Tensor] = []
    result: Any = None
    for x in frames:
        given, named = states.filled(result)
        result = model(x.clone(), *given, **named)
        steps.append(taken(result, output))
    return torch.stack(steps)


def probe(
    model: nn.Module,
    layers: Sequence[nn.Module],
    x: Tensor,
    T: int,
    *,
    wish: Presentation | Literal["auto"],
    output: int | None,
    framework: Framework,
    from_rest: Callable[[], AbstractContextManager[None]],
    temporal: bool = False,
) -> Found:
    """Detect how images must be presented to a model, by trial calls with two and three images.

    The steps that a layer makes in one call of the model decide. One step: the caller must make the
    T steps. As many as there are images: the model takes the first axis for time. T: the model
    loops over time itself.

    Raises:
        ImagesRefused: If the model raises in every presentation, candidates or not.
        ValueError: If no presentation fits, the model makes a number of steps other than T, or it
            returns its steps in a tuple.
    """
    two, three = (x.expand(n, *x.shape[1:]).contiguous() for n in (2, 3))
    reached = Reached()
    multistep = framework.multistep

    def shown(images: Tensor, how: Presentation) -> _Shown:
        nonlocal reached
        results: list[Any] = []
        handle = model.register_forward_hook(lambda _, given, result: results.append(result))
        try:
            with (
                from_rest(),
                counting(model, layers, framework) as calls,
                reaching(model) as reached,
            ):
                out = present(model, images, T, how, output or 0, temporal=temporal)
        finally:
            handle.remove()
        return _Shown(out, results[-1], calls)

    def refused(images: Tensor, how: Presentation) -> Trial | None:
        try:
            shown(images, how)
        except ResultRejected:
            return None
        except _REFUSALS as error:
            return Trial(how, _line(error), error, reached)
        return None

    if wish != "auto":
        candidates: tuple[Presentation, ...] = (wish,)
    elif not layers:
        candidates = _without_layers(shown, two, StateArguments.of(model))
    elif any(map(multistep, layers)):
        candidates = ("sequence", "inside")
    else:
        candidates = _single_step(shown, two, three, StateArguments.of(model))
    failed: list[Trial] = []
    for how in candidates:
        more = None
        try:
            more = shown(three, how)
            fewer = shown(two, how)
        except _REFUSALS as error:
            if isinstance(error, ResultRejected):
                said = str(error).removeprefix("foreign: ").rstrip(".")
                failed.append(Trial(how, said, None, reached, unreadable=True))
            else:
                failed.append(Trial(how, _line(error), error, reached, again=more is not None))
            continue
        if output is None and how != "steps" and _steps_in_tuple(more.result, T):
            raise ValueError(
                f"foreign: the model returns a tuple of T={T} tensors {list(more.out.shape)}; "
                "return the steps as a list or stacked, or pass output=0 to use the first alone."
            )
        counted = read_steps(fewer.calls, more.calls)
        problem = _problem(more.out, fewer.out, T, how, counted.steps)
        if problem is None:
            own_readout = more.out.ndim == 2
            unknown = how == "inside" and own_readout and counted.steps == (0, 0)
            batch_first = not own_readout and not _is_time_first(more.out, fewer.out)
            return Found(how, own_readout, batch_first, not unknown, counted.layouts)
        if "itself" in problem and (counted.steps[1] > 1 or not failed):
            raise ValueError(f"foreign: {problem}, got {T}.{_reused(how, more, counted.steps)}")
        failed.append(Trial(how, problem, None, reached))
    usual = _usual(layers, multistep)
    if all(trial.error is not None and not trial.again for trial in failed):
        others = [how for how in usual if how not in candidates]
        failed += [trial for how in others if (trial := refused(three.clone(), how)) is not None]
    raise explained(model, x, T, failed, candidates, usual)


def _usual(
    layers: Sequence[nn.Module], multistep: Callable[[nn.Module], bool]
) -> tuple[Presentation, ...]:
    """Return the presentations, the most usual for layers like these first."""
    if not layers:
        return ("inside", "steps", "sequence")
    if any(map(multistep, layers)):
        return ("sequence", "inside", "steps")
    return ("steps", "inside", "sequence")


def _without_layers(
    shown: Callable[[Tensor, Presentation], _Shown], two: Tensor, states: StateArguments
) -> tuple[Presentation, ...]:
    """Return the candidates for a model without known layers.

    A model that takes the states that it returns makes one step per call.
    """
    if states.names or states.any_number:
        try:
            if states.fit(shown(two, "inside").result):
                return ("steps", "inside")
        except _REFUSALS:
            pass
    return ("inside",)


def _single_step(
    shown: Callable[[Tensor, Presentation], _Shown],
    two: Tensor,
    three: Tensor,
    states: StateArguments,
) -> tuple[Presentation, ...]:
    """Return the candidates for a model whose layers take one step per call.

    A layer may be used several times in one step. Then the model takes states and returns [B, K],
    and its layers with weights are called once: in a loop over time they are called in every step.
    """
    try:
        fewer, more = shown(two, "inside"), shown(three, "inside")
    except _REFUSALS:
        return ("sequence", "steps")
    first, second = read_steps(fewer.calls, more.calls).steps
    if (first, second) == (2, 3):
        return ("sequence",)
    reused = more.out.ndim == 2 and states.fit(more.result) and more.calls.weighted <= 1
    return ("steps", "inside") if first == second and (first == 1 or reused) else ("inside",)


def _problem(
    out: Tensor, twice: Tensor, T: int, how: Presentation, steps: tuple[int, int]
) -> str | None:
    """Return what is wrong with the outputs for three and two images, or None.

    ``steps`` are those that the layers make for two and three images; without a known layer they
    cannot be counted and are 0.
    """
    own = None
    if how == "sequence" and steps == (2, 3):
        return "its layers loop over the images, not over the first axis"
    if _is_time_first(out, twice):
        own = len(out)
    elif _has_axis(out, twice, 0) and out.ndim == 2:
        if how == "inside":
            own = steps[1] or T
        elif how == "sequence" and steps == (T, T):
            own = T
    elif _has_axis(out, twice, 0) and out.ndim == 3 and how == "inside":
        own = out.shape[1] if out.shape[1] in (steps[1], T) else None
    if own is not None:
        return None if own == T else f"the model makes {own} steps itself; pass T={own}"
    return f"it returns {list(out.shape)} for three images and {list(twice.shape)} for two"


def _is_time_first(out: Tensor, twice: Tensor) -> bool:
    """Whether outputs for three and two images are [T, B, K]."""
    return out.ndim == 3 and _has_axis(out, twice, 1)


def _has_axis(out: Tensor, twice: Tensor, axis: int) -> bool:
    """Whether an axis of the outputs for three and two images is that of the images."""
    if out.ndim <= axis or out.ndim != twice.ndim:
        return False
    rest = [
        (a, b) for i, (a, b) in enumerate(zip(out.shape, twice.shape, strict=True)) if i != axis
    ]
    return (out.shape[axis], twice.shape[axis]) == (3, 2) and all(a == b for a, b in rest)


def _reused(how: Presentation, shown: _Shown, steps: tuple[int, int]) -> str:
    """Return the remedy for a model of one step that uses a layer several times, or nothing."""
    if how != "inside" or shown.out.ndim != 2 or shown.calls.whole or steps[1] < 2:
        return ""
    return f" If one step uses a layer {steps[1]} times, pass presentation='steps'."


def _steps_in_tuple(result: Any, T: int) -> bool:
    """Whether a result is a tuple of T >= 3 tensors [B, K] of one shape, which may be the steps."""
    return (
        isinstance(result, tuple)
        and len(result) == T >= 3
        and all(isinstance(each, Tensor) and each.ndim == 2 for each in result)
        and len({each.shape for each in result}) == 1
    )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]

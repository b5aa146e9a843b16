"""Present images or event frames to a foreign network over T steps, and detect how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeguard.models.adapters.trial_errors import (
    ImagesRefused,
    Reached,
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


class _ResultRejected(ValueError):
    """The model accepted the images, but returned something that cannot be read."""


@dataclass(frozen=True)
class Found:
    """Result of the trial calls.

    Attributes:
        presentation: How images are presented.
        own_readout: Whether the model returns [B, K], not [T, B, K].
    """

    presentation: Presentation
    own_readout: bool


def taken(result: Any, element: int) -> Tensor:
    """Return the tensor in a model's result: one element of a tuple; a list of steps is stacked.

    Raises:
        ValueError: If there is none.
    """
    if isinstance(result, tuple):
        if not -len(result) <= element < len(result):
            raise _ResultRejected(
                f"foreign: the model returns {len(result)} outputs, got {element=}."
            )
        result = result[element]
    if isinstance(result, list) and result and all(isinstance(r, Tensor) for r in result):
        result = torch.stack(result)
    if isinstance(result, Mapping):
        keys = ", ".join(map(repr, result))
        raise _ResultRejected(
            f"foreign: the model returns a {type(result).__name__} with the keys {keys}, not a "
            "tensor; return the spikes or logits alone, or in a tuple."
        )
    if not isinstance(result, Tensor):
        raise _ResultRejected(f"foreign: the model returns {type(result).__name__}, not a tensor.")
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

    Raises:
        ValueError: If the model loops over time itself, so that it takes one image alone.
    """
    if how == "inside":
        raise ValueError("foreign: the model loops over time itself; it takes no image per step.")
    if how == "sequence":
        return taken(model(frames.clone(memory_format=torch.contiguous_format)), output)
    steps, state = [], None
    for x in frames:
        result = model(x.clone()) if state is None else model(x.clone(), state)
        steps.append(taken(result, output))
        if _returns_state(result):
            state = result[1]
    return torch.stack(steps)


def probe(
    model: nn.Module,
    layers: Sequence[nn.Module],
    x: Tensor,
    T: int,
    *,
    wish: Presentation | Literal["auto"],
    output: int,
    multistep: Callable[[nn.Module], bool],
    from_rest: Callable[[], AbstractContextManager[None]],
    temporal: bool = False,
) -> Found:
    """Detect how images must be presented to a model, by trial calls with two and three images.

    The steps that a layer makes in one call of the model decide. One step: the caller must make the
    T steps. As many as there are images: the model takes the first axis for time. T: the model
    loops over time itself.

    Raises:
        ImagesRefused: If the model raises in every presentation, candidates or not.
        ValueError: If no presentation fits, or the model makes a number of steps other than T.
    """
    two, three = (x.expand(n, *x.shape[1:]).contiguous() for n in (2, 3))
    reached = Reached()

    def shown(images: Tensor, how: Presentation) -> tuple[Tensor, int]:
        nonlocal reached
        with (
            from_rest(),
            _counting(layers, multistep, len(images)) as steps,
            reaching(model) as reached,
        ):
            out = present(model, images, T, how, output, temporal=temporal)
        return out, max(steps.values(), default=0)

    def refused(images: Tensor, how: Presentation) -> Trial | None:
        try:
            shown(images, how)
        except _ResultRejected:
            return None
        except _REFUSALS as error:
            return Trial(how, _line(error), error, reached)
        return None

    if wish != "auto":
        candidates: tuple[Presentation, ...] = (wish,)
    elif not layers:
        candidates = ("inside",)
    elif any(map(multistep, layers)):
        candidates = ("sequence", "inside")
    else:
        candidates = _single_step(shown, two, three)
    failed: list[Trial] = []
    for how in candidates:
        out = None
        try:
            out, steps = shown(three, how)
            twice, _ = shown(two, how)
        except _REFUSALS as error:
            if isinstance(error, _ResultRejected):
                said = str(error).removeprefix("foreign: ").rstrip(".")
                failed.append(Trial(how, said, None, reached, unreadable=True))
            else:
                failed.append(Trial(how, _line(error), error, reached, again=out is not None))
            continue
        problem = _problem(out, twice, T, how, steps)
        if problem is None:
            return Found(how, out.ndim == 2)
        if "itself" in problem and (steps > 1 or not failed):
            raise ValueError(f"foreign: {problem}, got {T}.")
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


def _single_step(
    shown: Callable[[Tensor, Presentation], tuple[Tensor, int]], two: Tensor, three: Tensor
) -> tuple[Presentation, ...]:
    """Return the candidates for a model whose layers take one step per call."""
    try:
        (_, first), (_, second) = shown(two, "inside"), shown(three, "inside")
    except _REFUSALS:
        return ("sequence", "steps")
    if (first, second) == (2, 3):
        return ("sequence",)
    return ("steps", "inside") if first == second == 1 else ("inside",)


def _problem(out: Tensor, twice: Tensor, T: int, how: Presentation, steps: int) -> str | None:
    """Return what is wrong with the outputs for three and two images, or None."""
    own = None
    if out.ndim == 3 and out.shape[1] == 3 and twice.shape[1] == 2:
        own = len(out)
    elif how == "inside" and out.ndim == 2 and len(out) == 3 and len(twice) == 2:
        own = steps or T  # without a known layer, steps cannot be counted
    if own is not None:
        return None if own == T else f"the model makes {own} steps itself; pass T={own}"
    return f"it returns {list(out.shape)} for three images and {list(twice.shape)} for two"


class _counting:  # noqa: N801 - a context manager
    """Count the steps of every layer inside the block; time may be folded into the batch."""

    def __init__(
        self, layers: Sequence[nn.Module], multistep: Callable[[nn.Module], bool], batch: int
    ):
        self._layers, self._multistep, self._batch = layers, multistep, batch

    def __enter__(self) -> dict[nn.Module, int]:
        steps = dict.fromkeys(self._layers, 0)

        def count(module: nn.Module, given: tuple[Any, ...]) -> None:
            if not self._multistep(module):
                steps[module] += 1
            elif given[0].ndim > 1 and given[0].shape[1] == self._batch:
                steps[module] += len(given[0])
            else:
                steps[module] += len(given[0]) // self._batch

        self._handles = [layer.register_forward_pre_hook(count) for layer in self._layers]
        return steps

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()


def _returns_state(result: Any) -> bool:
    """Whether a step returned (output, state), as Norse's modules do, and not several outputs."""
    return isinstance(result, tuple) and len(result) == 2 and not isinstance(result[1], Tensor)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]

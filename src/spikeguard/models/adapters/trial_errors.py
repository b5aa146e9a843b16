"""Explain why a foreign network could not be shown images: the closest trial and its layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ImagesRefused", "Reached", "ResultRejected", "Trial", "explained", "reaching"]

_ORDER = ("sequence", "steps", "inside")  # of presentations, in messages

_NEEDS_CUDA = re.compile(r"cuda|cupy|triton|nvidia|active driver", re.IGNORECASE)


class ResultRejected(ValueError):
    """The model accepted the images, but returned something that cannot be read."""


class ImagesRefused(ValueError):
    """The model raises in every presentation of these images; the cause is the closest error.

    Attributes:
        why: That error, the layer that raised it, and the remedy where it is known.
    """

    def __init__(self, message: str, why: str):
        super().__init__(message)
        self.why = why


@dataclass
class Reached:
    """How far a call of a model came.

    Attributes:
        layers: Number of finished calls of layers without children.
        at: Name, layer and input of the call that has not finished; None if all have.
    """

    layers: int = 0
    at: tuple[str, nn.Module, Tensor] | None = None


@contextmanager
def reaching(model: nn.Module) -> Iterator[Reached]:
    """Count the finished calls of layers inside the block."""
    found = Reached()
    handles = []
    for name, module in model.named_modules():
        if any(True for _ in module.children()):
            continue

        def enter(layer: nn.Module, given: tuple[Any, ...], name: str = name) -> None:
            if given and isinstance(given[0], Tensor):
                found.at = name or "the model", layer, given[0].detach()

        def leave(*_: object) -> None:
            found.layers, found.at = found.layers + 1, None

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class Trial:
    """A trial call that failed.

    Attributes:
        how: The presentation.
        problem: What is wrong, as text.
        error: What it raised; None if the model returned something.
        reached: How far it came.
        again: Whether a call with another number of images came before and did not fail.
        unreadable: Whether the model returned something without logits or spikes.
    """

    how: str
    problem: str
    error: Exception | None
    reached: Reached
    again: bool = False
    unreadable: bool = False

    def explained(self, model: nn.Module) -> str:
        """Return the presentation and the reason."""
        return f"{self.how}: {self.reason(model)}"

    def reason(self, model: nn.Module) -> str:
        """Return error and layer, and the remedy of a known cause."""
        if self.error is None:
            return self.problem
        where = "" if self.reached.at is None else f", in {_layer(*self.reached.at)}"
        return f"{self.problem}{where}{self._remedy(model)}"

    def _remedy(self, model: nn.Module) -> str:
        """Return what to do about a known cause, as a clause that starts with a semicolon."""
        said = f"{type(self.error).__name__} {self.error}"
        if _NEEDS_CUDA.search(said) and not torch.cuda.is_available():
            compiled = [
                f"{name} ({module.backend})"
                for name, module in model.named_modules()
                if getattr(module, "backend", "torch") != "torch"
            ]
            what = f"set backend = 'torch' in {', '.join(compiled[:3])}" if compiled else ""
            what = what or "remove .cuda() and devices from the model's code"
            return f"; the model needs CUDA: {what}, or attack it where there is a GPU"
        if self.again:
            return (
                "; a call with three images worked, so the model keeps state between calls, or a "
                "batch size is written into it: reset its states at the start of forward"
            )
        if self.reached.at is not None and _other_type(self.reached.at[1], self.reached.at[2]):
            return "; parts of the model compute in different types: model.float() makes them equal"
        return ""


def explained(
    model: nn.Module,
    x: Tensor,
    T: int,
    failed: Sequence[Trial],
    candidates: Sequence[str],
    usual: Sequence[str],
) -> ValueError:
    """Return the error of a model that no presentation fits.

    Args:
        model: The model.
        x: The images.
        T: Time steps.
        failed: The failed trials.
        candidates: The presentations that layers like those of the model take.
        usual: All presentations, the most usual for such layers first.
    """
    failed = _closest_first(failed, usual)
    first = failed[0]
    if len(failed) == len(usual) and all(trial.error is not None for trial in failed):
        # A wrong presentation may come further by accident, so the usual one is shown as well.
        shown = [trial for trial in failed if trial is first or trial.how == usual[0]]
        why = "; ".join(trial.explained(model) for trial in shown)
        refused = ImagesRefused(
            f"foreign: the model cannot be shown images {list(x.shape[1:])} in T={T} steps "
            f"({why}); check their shape, and T.",
            first.reason(model) if len(shown) == 1 else why,
        )
        refused.__cause__ = first.error
        return refused
    tried = [trial.explained(model) for trial in failed if trial.how in candidates]
    told = "; ".join(tried[:1] if first.unreadable else tried)
    return ValueError(
        f"foreign: the model could not be driven in T={T} steps ({told}); "
        f"check T, or pass presentation= one of {', '.join(map(repr, _ORDER))}."
    )


def _closest_first(failed: Sequence[Trial], usual: Sequence[str]) -> list[Trial]:
    """Return the trials, the one that came furthest first; ``usual`` orders equal ones."""
    return sorted(failed, key=lambda t: (not t.again, -t.reached.layers, usual.index(t.how)))


def _layer(name: str, layer: nn.Module, given: Tensor) -> str:
    """Describe a layer and its input: "f.0 (Conv2d, takes 3 channels), given float32 [3, 1]"."""
    takes = ""
    for attribute, unit in (("in_channels", "channels"), ("in_features", "features")):
        count = getattr(layer, attribute, None)
        takes = f", takes {count} {unit}" if isinstance(count, int) else takes
    other = _other_type(layer, given)
    takes += "" if other is None else f", {_name(other)} weights"
    return f"{name} ({type(layer).__name__}{takes}), given {_name(given.dtype)} {list(given.shape)}"


def _other_type(layer: nn.Module, given: Tensor) -> torch.dtype | None:
    """Return the type of a layer's weights where it is not that of its input."""
    own = next((p.dtype for p in layer.parameters() if p.is_floating_point()), given.dtype)
    return None if own == given.dtype else own


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

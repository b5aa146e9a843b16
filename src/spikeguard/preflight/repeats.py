"""Tests that a model is repeatable: same logits in every call and batch, no changed state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError
from spikeguard.attacks.model_access import classify
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.system.model_errors import is_model_error

__all__ = [
    "Logits",
    "UndeclaredRandomness",
    "changes",
    "global_generators_kept",
    "left_unchanged",
    "presented",
    "require_independence",
    "require_same_again",
    "restore",
    "show_few",
    "state",
]

_ALONE = 8  # samples shown alone; all of them where one of these moved
_MOVED = 0.25  # share of samples in which rounding can flip a spike

Logits = Callable[[Tensor, Tensor], Tensor]
"""``(images, their indices) -> logits [B, K]``, without a gradient; noise from fixed streams."""


class UndeclaredRandomness(ValueError):
    """The model draws from a global generator."""


def presented(model: nn.Module, y: Tensor, seed: int) -> Logits:
    """Return the function that shows images to a model; an image has the same noise every time."""

    def logits(images: Tensor, index: Tensor) -> Tensor:
        streams = SampleStreams(key(seed, "check"), index)
        with randomness(model, streams), torch.no_grad():
            return classify(model, images, y[index.to(y.device)])

    return logits


@contextmanager
def global_generators_kept(device: torch.device) -> Iterator[None]:
    """Restore the global generators of torch, NumPy and Python after the block."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


def require_same_again(again: Callable[[], Tensor]) -> Tensor:
    """Return the logits of a call, which a second call must repeat; errors tell noise from state.

    On the CPU equal means every bit; an accelerator may add in another order in each call. The
    model must have been called before, so that an error of these calls is not that of the images.

    Raises:
        UndeclaredRandomness: If the calls agree once the global generators are seeded.
        ValueError: If they do not, or the second call raises.
    """

    def seeded() -> Tensor:
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002
        random.seed(0)
        return again()

    try:
        first, other = again(), again()
        if torch.equal(other, first):
            return first
        if first.device.type != "cpu" and _moved(other, first) <= _MOVED:
            return first
        with global_generators_kept(first.device):
            chance = torch.equal(seeded(), seeded())
    except Exception as error:
        if isinstance(error, AttackError) or not is_model_error(error):
            raise
        line = str(error).partition("\n")[0]
        raise ValueError(
            f"check: the second call raises ({line}), as if the model kept state between calls; "
            "adapt it with spikeguard.foreign, or reset its states at the start of forward."
        ) from error
    if chance:
        raise UndeclaredRandomness(
            "check: two calls on the same images differ, because the model draws from torch's "
            "global generator or from NumPy's: its robustness would be luck; show the image "
            "itself at every step instead of sampled spikes, and leave dropout in evaluation mode."
        )
    raise ValueError(
        "check: two calls on the same images differ: states of the first call leak into the "
        "second; adapt the model with spikeguard.foreign, or reset its states at the start of "
        "forward."
    )


def require_independence(logits: Logits, x: Tensor, first: Tensor) -> None:
    """Require logits of an image that do not depend on the rest of the batch or its order.

    Where one of the first images moved, all are shown alone: rounding flips a spike of a few.

    Raises:
        ValueError: If more than a quarter of the images move, or the model takes no single image.
    """
    index = torch.arange(len(x))

    def alone(n: int) -> Tensor:
        try:
            return torch.cat([logits(x[i : i + 1], index[i : i + 1]) for i in range(n)])
        except Exception as error:
            if isinstance(error, AttackError) or not is_model_error(error):
                raise
            raise _size_error(error, len(x), "one image alone") from error

    some = min(_ALONE, len(x))
    moved = _moved(alone(some), first[:some])
    if moved and some < len(x):
        moved = _moved(alone(len(x)), first)
    turned = _moved(logits(x.flip(0), index.flip(0)).flip(0), first)
    for how, share in (("alone", moved), ("in another order", turned)):
        if share > _MOVED:
            raise ValueError(
                f"check: logits of {100 * share:.0f} % of the images change when they are shown "
                f"{how}: images of a batch share statistics or states; keep batch norm in "
                "evaluation mode and reset all states at the start of forward."
            )


def show_few(logits: Logits, x: Tensor, few: int) -> None:
    """Show the first ``few`` images.

    Raises:
        ValueError: If the model raises for them, but not for all of x.
    """
    index = torch.arange(len(x))
    try:
        logits(x[:few], index[:few])
    except Exception as error:
        if isinstance(error, AttackError) or not is_model_error(error):
            raise
        logits(x, index)  # raises for a model that takes no such images at all
        raise _size_error(error, len(x), f"the first {few}") from error


def _size_error(error: Exception, images: int, fewer: str) -> ValueError:
    """Return the error of a model that takes one batch size only."""
    line = str(error).partition("\n")[0]
    return ValueError(
        f"check: the model takes a batch of {images} images but raises for {fewer} ({line}); "
        "attacks show batches of any size: keep batch norm in evaluation mode and write no batch "
        "size into the model."
    )


@contextmanager
def left_unchanged(x: Tensor) -> Iterator[None]:
    """Reject a model that writes to the images inside the block; torch does not count all writes.

    Raises:
        ValueError: If the images have changed, in place of any other error.
    """
    before = x.clone()
    try:
        yield
    finally:
        if not torch.equal(x, before):
            raise ValueError(
                "check: the model writes to its argument, so every call changes the images; write "
                "x = x.clone() at the start of forward, or adapt it with spikeguard.foreign."
            )


def _moved(other: Tensor, same: Tensor) -> float:
    """Return the share of images whose logits differ by more than rounding."""
    close = torch.isclose(other, same, rtol=1e-4, atol=1e-5).all(1)
    return float((~close).double().mean())


def state(model: nn.Module) -> dict[str, Tensor | bool]:
    """Copy the state that a call must not change: parameters, buffers, modes."""
    named = [*model.named_parameters(), *model.named_buffers()]
    found: dict[str, Tensor | bool] = {name: t.detach().clone() for name, t in named}
    return found | {f"{n or 'model'}.training": m.training for n, m in model.named_modules()}


def restore(model: nn.Module, before: dict[str, Tensor | bool]) -> None:
    """Write the stored parameters, buffers and modes back into a model."""
    named = [*model.named_parameters(), *model.named_buffers()]
    with torch.no_grad():
        for name, tensor in named:
            stored = before.get(name)
            if not isinstance(stored, Tensor) or stored.shape != tensor.shape:
                continue
            if not torch.equal(stored, tensor):
                tensor.copy_(stored)
    for name, module in model.named_modules():
        module.training = bool(before.get(f"{name or 'model'}.training", module.training))


def changes(before: dict[str, Tensor | bool], after: dict[str, Tensor | bool]) -> list[str]:
    """Return the names of entries that differ between two states."""
    return sorted(n for n in before | after if not _equal(before.get(n), after.get(n)))


def _equal(before: Tensor | bool | None, after: Tensor | bool | None) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return torch.equal(before, after)
    return before is after

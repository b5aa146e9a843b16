"""Tests that a model is repeatable: same logits in every call and batch, no changed state."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import AttackError

__all__ = ["changes", "require_independence", "require_same_again", "state"]

_MOVED = 0.1  # share of samples in which rounding can flip a spike


def require_same_again(again: Callable[[], Tensor], first: Tensor) -> None:
    """Require two bitwise equal calls; the error distinguishes noise from state."""
    try:
        if torch.equal(again(), first):
            return
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            one = again()
            torch.manual_seed(0)
            chance = torch.equal(again(), one)
    except RuntimeError as error:
        if isinstance(error, AttackError | torch.OutOfMemoryError):
            raise
        line = str(error).partition("\n")[0]
        raise ValueError(
            f"check: the second call raises ({line}), as if the model kept state between calls; "
            "adapt it with spikeguard.foreign, or reset its states at the start of forward."
        ) from error
    if chance:
        raise ValueError(
            "check: two calls on the same images differ, because the model draws from torch's "
            "global generator: its robustness would be luck; show the image itself at every step "
            "instead of sampled spikes, and leave dropout in evaluation mode."
        )
    raise ValueError(
        "check: two calls on the same images differ: states of the first call leak into the "
        "second; adapt the model with spikeguard.foreign, or reset its states at the start of "
        "forward."
    )


def require_independence(
    logits: Callable[[Tensor, Tensor], Tensor], x: Tensor, first: Tensor
) -> None:
    """Require logits of an image that do not depend on the rest of the batch or its order."""
    index = torch.arange(len(x))
    some = min(8, len(x))
    alone = torch.cat([logits(x[i : i + 1], index[i : i + 1]) for i in range(some)])
    turned = logits(x.flip(0), index.flip(0)).flip(0)
    for how, other, same in (
        ("alone", alone, first[:some]),
        ("in another order", turned, first),
    ):
        close = torch.isclose(other, same, rtol=1e-4, atol=1e-5).all(1)
        moved = float((~close).double().mean())
        if moved > _MOVED:
            raise ValueError(
                f"check: logits of {100 * moved:.0f} % of the images change when they are shown "
                f"{how}: images of a batch share statistics or states; keep batch norm in "
                "evaluation mode and reset all states at the start of forward."
            )


def state(model: nn.Module) -> dict[str, Tensor | bool]:
    """Copy the state that a call must not change: parameters, buffers, modes."""
    named = [*model.named_parameters(), *model.named_buffers()]
    found: dict[str, Tensor | bool] = {name: t.detach().clone() for name, t in named}
    return found | {f"{n or 'model'}.training": m.training for n, m in model.named_modules()}


def changes(before: dict[str, Tensor | bool], after: dict[str, Tensor | bool]) -> list[str]:
    """Return the names of entries that differ between two states."""
    return sorted(n for n in before | after if not _equal(before.get(n), after.get(n)))


def _equal(before: Tensor | bool | None, after: Tensor | bool | None) -> bool:
    if isinstance(before, Tensor) and isinstance(after, Tensor):
        return torch.equal(before, after)
    return before is after

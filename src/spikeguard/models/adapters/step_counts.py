"""Count the steps of foreign layers in a call of their network, and find their axis of time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from spikeguard.models.adapters.frameworks.base import Framework

__all__ = ["Calls", "Counted", "Layout", "counting", "read_steps"]

Layout = Literal["time first", "batch first", "folded"]  # [T, B, *N], [B, T, *N] or [T B, *N]


@dataclass(frozen=True)
class _Call:
    """One call of a layer: shape of its input, and how often it decided on spikes (0: unknown)."""

    shape: tuple[int, ...]
    decisions: int


@dataclass
class Calls:
    """The calls of a network's layers inside a block.

    Attributes:
        of: The calls of each layer over time.
        whole: The layers that take all steps in one call.
    """

    of: dict[nn.Module, list[_Call]]
    whole: frozenset[nn.Module]
    _others: dict[nn.Module, int] = field(default_factory=dict)

    @property
    def weighted(self) -> int:
        """The largest number of calls of any other layer with weights."""
        return max(self._others.values(), default=0)


@dataclass(frozen=True)
class Counted:
    """Steps of the layers for two and for three images, and the layout of each layer's tensors.

    Attributes:
        steps: The largest number of steps of any layer, for two and for three images.
        layouts: Layouts of the layers that take all steps in one call; None if it is not known.
    """

    steps: tuple[int, int]
    layouts: Mapping[nn.Module, Layout | None]


@contextmanager
def counting(
    model: nn.Module, layers: Sequence[nn.Module], framework: Framework
) -> Iterator[Calls]:
    """Record the calls of every layer inside the block; its caller restores the layers after it."""
    whole = frozenset(filter(framework.multistep, layers))
    calls = Calls({layer: [] for layer in layers}, whole)
    inside = {part for layer in layers for part in layer.modules()}
    decided = dict.fromkeys(layers, 0)
    handles = []

    def count(module: nn.Module, given: object) -> None:
        calls._others[module] = calls._others.get(module, 0) + 1

    def enter(module: nn.Module, given: object) -> None:
        decided[module] = 0

    def leave(module: nn.Module, given: tuple[Any, ...], result: object) -> None:
        calls.of[module].append(_Call(tuple(given[0].shape), decided[module]))

    for layer in layers:

        def decide(layer: nn.Module = layer) -> None:
            decided[layer] += 1

        framework.watch(layer, decide)
        handles += [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
    for module in model.modules():
        if module not in inside and any(True for _ in module.parameters(recurse=False)):
            handles.append(module.register_forward_pre_hook(count))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def read_steps(two: Calls, three: Calls) -> Counted:
    """Compare the calls of a network that was shown two images, and three."""
    steps: list[tuple[int, int]] = [(0, 0)]
    layouts: dict[nn.Module, Layout | None] = {}
    for layer, calls in three.of.items():
        before = two.of[layer]
        if layer not in three.whole:
            steps.append((len(before), len(calls)))
        elif calls and len(before) == len(calls):
            read = [_steps(a, b) for a, b in zip(before, calls, strict=True)]
            steps.append((sum(each[0] for each in read), sum(each[1] for each in read)))
            found = {each[2] for each in read}
            layouts[layer] = found.pop() if len(found) == 1 else None
    return Counted((max(a for a, _ in steps), max(b for _, b in steps)), layouts)


def _steps(two: _Call, three: _Call) -> tuple[int, int, Layout | None]:
    """Return the steps of a layer in one call with two images and with three, and its layout."""
    a, b = two.shape, three.shape
    decided = (two.decisions, three.decisions)
    if a[1:2] == (2,) and b[1:2] == (3,) and a[0] == b[0]:
        if decided == (2, 3):  # it loops over the axis of the images
            return 2, 3, None
        return a[0], b[0], "time first"
    width = b[1] if len(b) > 2 else 0
    if (a[0], b[0]) == (2, 3) and a[1:] == b[1:] and decided == (width, width) and width > 1:
        return width, width, "batch first"
    return a[0] // 2, b[0] // 3, "folded" if a[0] * 3 == b[0] * 2 else None

"""Choice of neurons: given ones, those whose spike count changes most, and random ones."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spikeguard.rng import stream

__all__ = ["MostChanged", "Neuron", "parse_neurons", "random_neurons"]

_NEURON = re.compile(r"([^,:@\s]+):(\d+)(?:@(\d+))?")


class Neuron(NamedTuple):
    """A neuron on an image: name of its layer, place in the flattened layer, place of the image."""

    layer: str
    place: int
    image: int

    def __str__(self) -> str:
        return f"{self.layer}:{self.place}@{self.image}"


def parse_neurons(text: str | None) -> tuple[Neuron, ...]:
    """Read neurons written as ``LAYER:PLACE`` or ``LAYER:PLACE@IMAGE``, with commas between them.

    Raises:
        ValueError: If a word has another form.

    Example:
        >>> [str(each) for each in parse_neurons("features.2:17@3,classifier.2:0")]
        ['features.2:17@3', 'classifier.2:0@0']
    """
    found = []
    for word in filter(None, (text or "").split(",")):
        match = _NEURON.fullmatch(word)
        if match is None:
            raise ValueError(
                f"traces: neurons are LAYER:PLACE or LAYER:PLACE@IMAGE with commas between them, "
                f"such as 'features.2:17@3'; got {word!r}."
            )
        found.append(Neuron(match[1], int(match[2]), int(match[3] or 0)))
    return tuple(found)


def random_neurons(sizes: dict[str, int], images: int, count: int, seed: int) -> list[Neuron]:
    """Return seeded random neurons: a uniform layer, then a uniform neuron and image.

    Args:
        sizes: Neurons of every layer, by name.
        images: Number of images.
        count: Number of neurons.
        seed: Seed of the draw.
    """
    generator = stream(seed, "neurons")

    def below(n: int) -> int:
        return int(torch.randint(n, (1,), generator=generator))

    found = []
    for _ in range(count):
        layer = list(sizes)[below(len(sizes))]
        found.append(Neuron(layer, below(sizes[layer]), below(images)))
    return found


@dataclass(frozen=True)
class MostChanged:
    """The neurons of every layer whose spike count changes most; ties go to the first image.

    Attributes:
        count: Neurons kept in every layer.
        ranked: Change and neuron, by layer, the largest change first.
    """

    count: int
    ranked: dict[str, list[tuple[float, Neuron]]]

    def add(self, layer: str, change: Tensor, first: int) -> None:
        """Consider the changes of spike counts of a layer [B, neurons] on images from ``first``."""
        left, width = change.flatten().clone(), change.shape[1]
        kept = self.ranked.setdefault(layer, [])
        for _ in range(min(self.count, left.numel())):
            best = float(left.max())
            at = int((left == best).nonzero()[0])
            left[at] = -1
            kept.append((best, Neuron(layer, at % width, first + at // width)))
        kept.sort(key=lambda each: (-each[0], each[1].image, each[1].place))
        del kept[self.count :]

    def kept(self) -> list[Neuron]:
        """Return all neurons that may still be chosen."""
        return [neuron for each in self.ranked.values() for _, neuron in each]

    def chosen(self) -> list[Neuron]:
        """Return ``count`` neurons: the best of every layer first, the largest change first."""
        order = list(self.ranked)
        rows = [
            (rank, -change, order.index(layer), neuron)
            for layer, kept in self.ranked.items()
            for rank, (change, neuron) in enumerate(kept)
        ]
        return [neuron for *_, neuron in sorted(rows)[: self.count]]

"""StoredSet: what sets share whose samples stay on disk and are read batch by batch."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from spikeguard.data.conversion import as_labels, check_labels
from spikeguard.data.images import ImageSet

__all__ = ["StoredSet"]


@dataclass(frozen=True, eq=False)
class StoredSet(ImageSet):
    """An ``ImageSet`` without ``images`` in memory: labels, and where each sample is stored.

    A subclass names its samples in ``kind`` and the field that says where they are in ``where``,
    calls ``_check_stored`` and overrides ``shape``, ``digest``, ``describe``, ``batch``, ``subset``
    and ``read_all``.
    """

    kind: ClassVar[str]
    where: ClassVar[str]

    images: Tensor = field(init=False, repr=False)
    labels: Tensor

    def __getattr__(self, name: str) -> Any:
        if name == "images":  # the one field of an ImageSet that is never set
            raise AttributeError(f"{self.name}: {self.kind} stay on disk; call batch(index).")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def _stored(self) -> Sized:
        found: Sized = getattr(self, self.where)
        return found

    def _check_stored(self) -> None:
        """Convert labels and class names; reject those that do not fit, and an empty set."""
        title = f"{type(self).__name__} {self.name!r}"
        object.__setattr__(self, "labels", as_labels(self.labels, title))
        object.__setattr__(self, "classes", tuple(map(str, self.classes)))
        if not len(self):
            raise ValueError(f"{title}: holds no {self.kind}.")
        check_labels(title, self.labels, len(self), self.num_classes, self.kind)
        self._check_classes(title)

    def _positions(self, index: Tensor | Sequence[int] | slice) -> Tensor:
        """Return the positions of an index, on the CPU [B]."""
        positions = torch.arange(len(self), device="cpu")
        if isinstance(index, slice):
            return positions[index]
        wanted = torch.as_tensor(index)
        if wanted.ndim != 1:
            raise ValueError(
                f"{type(self).__name__}: an index is a slice or a list of positions, got {index!r}."
            )
        return positions[wanted.cpu()] if len(wanted) else positions[:0]

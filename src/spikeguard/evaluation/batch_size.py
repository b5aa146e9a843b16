"""BatchSize: how many samples an evaluation runs at once, halved where memory runs out."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from spikeguard.system.out_of_memory import OutOfMemory

__all__ = ["BatchSize", "MemoryShortage"]


class MemoryShortage(UserWarning):
    """An evaluation goes on with smaller batches, because the memory was not enough."""


@dataclass
class BatchSize:
    """Samples at once; it is halved when memory runs out, for all later shards too."""

    samples: int

    def halve(self, error: BaseException) -> None:
        """Halve the size, with a warning.

        Raises:
            OutOfMemory: If a single sample is too much.
        """
        if self.samples == 1:
            raise OutOfMemory(
                "evaluate: out of memory with a single image at once; free some memory, or use "
                "fewer processes or a machine with more. Finished shards are kept."
            ) from error
        self.samples //= 2
        warnings.warn(
            f"out of memory with {2 * self.samples} images at once; continuing with "
            f"{self.samples}. Results do not depend on it.",
            MemoryShortage,
            stacklevel=2,
        )

"""How far an evaluation has come, counted in gradients, and how many are left at most."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from spikeguard.attacks.base import FORWARD, Attack, cost
from spikeguard.attacks.model_access import observe_passes

__all__ = ["ProgressMeter", "Progress"]

Progress = Callable[[int, int, str], None]

_OFTEN = 1000  # calls from the beginning to the end, beside one for every attack of every part


class ProgressMeter:
    """Tells ``progress(done, total, what)``: gradients made, and with those left at most.

    Done is what the model really did: a forward pass counts a third. Left is what all attacks to
    come may cost on the samples that are still right, so that the total falls where attacks
    succeed, and done / total follows the clock: the dear attacks of a cascade come last. Parts to
    come are taken to cost what those did that are over.

    Args:
        progress: The one who is told; or None.
        attacks: In the order in which they run.
        images: How many samples the evaluation has.
        draws: Forward passes that score an input.
        again: Forward passes that score once more what an attack found.
    """

    def __init__(
        self,
        progress: Progress | None,
        attacks: Mapping[str, Attack],
        images: int,
        draws: int,
        again: int = 0,
    ):
        score = (draws + again) * FORWARD
        costs = {name: cost(attack) for name, attack in attacks.items()}
        known = [each for each in costs.values() if math.isfinite(each)]
        usual = sum(known) / len(known) if known else 1.0  # of an attack that does not say
        self._costs = {n: score + (c if math.isfinite(c) else usual) for n, c in costs.items()}
        self._clean = 1 + draws * FORWARD  # the outcome without an attack, and one gradient
        self._progress = progress
        self._to_come = images  # in parts that have not begun
        self._over, self._over_made = 0, 0.0  # samples of finished parts, gradients made for them
        self._part, self._whole = 0, True  # samples of this part; whether all of it is made here
        self._made = self._part_began = self._stage_began = self._told = 0.0
        self._stage, self._open, self._fooled = "", 0, 0

    @contextmanager
    def counting_passes(self) -> Iterator[None]:
        """Count what the model does inside the block."""
        if self._progress is None:
            yield
            return
        with observe_passes(self._heard):
            yield

    def begin(self, samples: int) -> None:
        """Begin the next part, of so many samples."""
        self._to_come -= samples
        self._part, self._whole, self._part_began = samples, True, self._made
        self._enter("", samples)

    def resume(self) -> None:
        """Say that a piece of this part was made before: it is no measure for others."""
        self._whole = False

    def end(self) -> None:
        """End the part."""
        if self._whole:
            self._over += self._part
            self._over_made += self._made - self._part_began
        self._part = self._open = 0

    def skip(self, samples: int) -> None:
        """Pass over a part that was finished before."""
        self._to_come -= samples

    def attack(self, name: str, samples: int) -> None:
        """Begin an attack of the part, on so many samples."""
        self._enter(name, samples)
        self._tell()

    def fooled(self, samples: int) -> None:
        """Say how many samples this attack has fooled: they are at their end."""
        self._fooled = samples

    def finish(self) -> None:
        """Say that all is done."""
        if self._progress is not None:
            whole = max(1, round(self._made))
            self._progress(whole, whole, "done")

    @property
    def left(self) -> float:
        """Gradients that are left at most."""
        return self._left_here() + self._to_come * self._each()

    def _enter(self, stage: str, samples: int) -> None:
        self._stage, self._open, self._fooled = stage, samples, 0
        self._stage_began = self._made

    def _left_here(self) -> float:
        names = list(self._costs)
        place = names.index(self._stage) if self._stage else -1
        own = self._costs[self._stage] if self._stage else self._clean
        spent = self._made - self._stage_began
        here = min(self._open * own - spent, (self._open - self._fooled) * own)
        return max(0.0, here) + self._open * sum(self._costs[name] for name in names[place + 1 :])

    def _each(self) -> float:
        """Gradients for a sample of a part to come."""
        if self._over:
            return self._over_made / self._over
        if self._part and self._whole:
            return (self._made - self._part_began + self._left_here()) / self._part
        return self._clean + sum(self._costs.values())

    def _heard(self, samples: int, gradient: bool) -> None:
        self._made += samples * (1.0 if gradient else FORWARD)
        if self._stage and _OFTEN * (self._made - self._told) >= self._made + self.left:
            self._tell()

    def _tell(self) -> None:
        if self._progress is not None:
            self._told, done = self._made, round(self._made)
            self._progress(done, max(done + 1, round(self._made + self.left)), self._stage)

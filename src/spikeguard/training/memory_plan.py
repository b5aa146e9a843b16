"""plan_memory(): the peak memory of a training step, known before the training starts.

Steps on two and on four images are measured on a copy of the model, attack, backward pass and
optimiser included. At every point of a step memory is linear in the number of images, so the curve
of a whole batch follows, and its peak, which may be at another point than that of two images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from spikeguard.attacks.base import AttackError
from spikeguard.data.images import Splits
from spikeguard.defences.objective import Objective
from spikeguard.system.memory import free_memory, size_text
from spikeguard.training.live_memory import LiveMemory
from spikeguard.training.options import TrainOptions
from spikeguard.training.trial_step import TrialStep

__all__ = ["MemoryPlan", "MemoryPlanWarning", "plan_memory"]

_FEW, _MORE = 2, 4  # images of the measured steps; batch normalisation needs two


class MemoryPlanWarning(UserWarning):
    """The planned peak of a training is more than the memory that is free."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a training step needs at its peak: weights, gradients, optimiser, activations, attack.

    Work space that an operation needs for itself and the libraries themselves are not included.

    Attributes:
        fixed: Bytes that do not depend on the number of images, at each point of a step.
        sample: Bytes for each image that is in memory at once, at the same points.
        images: Images at once in one process: a batch, or the part that ``accumulate`` and the
            number of processes make of it.
        batch: Images of an optimiser step.
        device: "cpu" or "cuda".
        free: Bytes that are free there, or None where it is unknown.
        checkpointing: Whether activations are checkpointed.
        ranks: Processes that share each batch.
    """

    fixed: tuple[float, ...]
    sample: tuple[float, ...]
    images: int
    batch: int
    device: str
    free: int | None
    checkpointing: bool = False
    ranks: int = 1

    @property
    def peak(self) -> float:
        """Bytes at the peak of a step."""
        return self.at(self.images)

    def at(self, images: int) -> float:
        """Return the bytes at the peak of a step with so many images at once."""
        return max(a + b * images for a, b in zip(self.fixed, self.sample, strict=True))

    @property
    def most(self) -> int:
        """The number of images at once that fit; those of the plan where that is unknown."""
        if self.free is None:
            return self.images
        pairs = list(zip(self.fixed, self.sample, strict=True))
        if any(a > self.free for a, _ in pairs):
            return 0
        return min(math.floor((self.free - a) / b) for a, b in pairs if b > 0)

    @property
    def fits(self) -> bool:
        """Whether the peak is at most what is free; true where that is unknown."""
        return self.free is None or self.peak <= self.free

    def __str__(self) -> str:
        left = "memory free unknown" if self.free is None else f"{size_text(self.free)} free"
        return (
            f"about {size_text(self.peak)} at the peak of a step, {self.images} images at once "
            f"({self.device}, {left})"
        )

    def remedy(self) -> str:
        """Return what to change where the plan does not fit, as a clause; empty where it does."""
        if self.free is None or self.fits:
            return ""
        again = "" if self.checkpointing else "train.checkpoint_activations=true"
        shares = self.batch // self.ranks  # images of a process, which equal parts divide
        fitting = [n for n in range(min(self.most, shares), _FEW - 1, -1) if shares % n == 0]
        if self.most >= _FEW:
            ways = [
                f"train.accumulate={shares // count} ({count} images at once)"
                for count in fitting[:1]
            ]
            ways += [again] if again else []
            return f"write {' or '.join([*ways, 'a smaller train.batch_size'])}"
        smaller = "a smaller data.size, model.width or model.T"
        return f"not even {_FEW} images fit; write {again + ', or ' if again else ''}{smaller}"


def plan_memory(
    model: nn.Module,
    data: Splits,
    objective: Objective,
    options: TrainOptions,
    *,
    ranks: int = 1,
    device: torch.device | None = None,
) -> MemoryPlan | None:
    """Measure small steps and return the plan of the training; the model is left unchanged.

    Args:
        model: The model to train.
        data: Its images.
        objective: The objective of the training.
        options: Its options.
        ranks: Processes that share each batch; the plan is for one of them.
        device: Where it is trained; the first CUDA device if there is one, else the CPU.

    Returns:
        The plan; None if there are fewer than four training images, or the attack of the objective
        fails on the untrained network.
    """
    if len(data.train) < _MORE:
        return None
    curves = []
    try:
        with LiveMemory() as memory:
            step = TrialStep(model, data, objective, options, device)
            step(_FEW)  # makes the state of the optimiser
            for count in (_FEW, _MORE):
                memory.peaks = [memory.live]
                step(count)
                curves.append(memory.peaks)
    except AttackError:  # the training itself reports it
        return None
    few, more = _same_points(*curves)
    sample = tuple(max(0.0, (b - a) / (_MORE - _FEW)) for a, b in zip(few, more, strict=True))
    largest = min(options.batch_size, len(data.train))
    return MemoryPlan(
        fixed=tuple(a - _FEW * each for a, each in zip(few, sample, strict=True)),
        sample=sample,
        images=math.ceil(largest / (options.accumulate * ranks)),
        batch=options.batch_size,
        device=step.device.type,
        free=_free(step.device),
        checkpointing=options.checkpoint_activations,
        ranks=ranks,
    )


def _same_points(few: list[int], more: list[int]) -> tuple[list[int], list[int]]:
    """Return two curves of as many points; only their peaks where the steps did other work."""
    return (few, more) if len(few) == len(more) else ([max(few)], [max(more)])


def _free(device: torch.device) -> int | None:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_memory()

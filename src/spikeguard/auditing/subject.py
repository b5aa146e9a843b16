"""What is audited: a model, samples and a threat, and how the model is run on these samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack, AttackError
from spikeguard.attacks.model_access import evaluating, frozen, is_stochastic
from spikeguard.attacks.threat import Threat
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["Budget", "Provenance", "Subject"]

Budget = Literal["quick", "full"]
T = TypeVar("T")


@dataclass(frozen=True)
class Provenance:
    """How the settings of the reported attack were chosen.

    Args:
        split: The data they were chosen on, such as "validation"; "fixed" where nothing was chosen.
        trials: How many settings were tried, >= 1.

    Raises:
        ValueError: If trials is below 1 or the split has no name.
    """

    split: str = "fixed"
    trials: int = 1

    def __post_init__(self) -> None:
        if self.trials < 1 or not self.split:
            raise ValueError(
                f"Provenance: name the split and count the trials, >= 1, got {self.split!r} and "
                f"{self.trials}; write Provenance('validation', trials=12)."
            )


@dataclass(frozen=True, eq=False)
class Subject:
    """A model on samples whose noise is named, so that every look at it can be repeated.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        x: Samples [N, ...] in [0, 1].
        y: Labels [N].
        threat: The set whose robustness is audited.
        seed: Names all random streams.
        steps: Steps of PGD.
        batch_size: Samples at once.
        budget: "quick" or "full"; checks choose their sizes with :meth:`pick`.
        substitutes: Other models, by name, from which attacks are transferred.
        undefended: A plainly trained model that the same attacks must break.
        tuned: How the settings of the reported attack were chosen.
        attack: The attack that is reported; None is APGD.
        rescore: ``(x_adv, y) -> correct [N]``, scored in a fresh process; None where there is none.
        trained_with: The surrogate of training, or one for each layer; None: unknown.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    seed: int = 0
    steps: int = 20
    batch_size: int = 64
    budget: Budget = "full"
    substitutes: Mapping[str, nn.Module] = field(default_factory=dict)
    undefended: nn.Module | None = None
    tuned: Provenance = Provenance()
    attack: Attack | None = None
    rescore: Callable[[Tensor, Tensor], Tensor] | None = None
    trained_with: Surrogate | Mapping[str, Surrogate] | None = None

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, *, full: T, quick: T) -> T:
        """Return the size for this audit's budget."""
        return full if self.budget == "full" else quick

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what ``make`` makes; it is made when first asked for under a name, and kept."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept

    @cached_property
    def _kept(self) -> dict[str, Any]:
        return {}

    @cached_property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return self.logits(torch.arange(1)).shape[1]

    @cached_property
    def stochastic(self) -> bool:
        """Whether the model says that two calls on the same input can differ."""
        return is_stochastic(self.model)

    @cached_property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def reach(self) -> float:
        """Radius of the ball around an image that holds every image."""
        pixels = self.x[0].numel()
        return {"l2": math.sqrt(pixels), "l1": float(pixels)}.get(self.threat.norm, 1.0)

    @cached_property
    def clean(self) -> Tensor:
        """Share of noise draws on which each clean sample is right [N]."""
        return self.scored(self.x, "clean")

    def scored(self, x: Tensor, name: str = "score") -> Tensor:
        """Return the share of fresh draws on which the model is right about each input [N].

        Args:
            x: Inputs in place of the samples [N, ...].
            name: Names the draws of a stochastic model.
        """
        found = evaluate(
            self.model,
            (x, self.y),
            {},
            seed=key(self.seed, "audit", name),
            batch_size=self.batch_size,
        )
        return found.outcomes["clean"]

    def batches(self) -> Iterator[Tensor]:
        """Yield the positions of the samples, a batch at a time."""
        for start in range(0, len(self), self.batch_size):
            yield torch.arange(start, min(start + self.batch_size, len(self)))

    def logits(self, index: Tensor, *, name: str = "forward", mirrored: bool = False) -> Tensor:
        """Return the logits of one batch from one forward pass in evaluation mode.

        Args:
            index: Positions of the samples.
            name: Names the noise: a sample draws the same in every batch under the same name.
            mirrored: Show other images in their place, with the pixels turned to 1 - x.

        Raises:
            AttackError: If the logits are not finite.
        """
        x = self.x[index].to(self.device)
        with evaluating(self.model), self.streams(index, name), torch.no_grad():
            logits: Tensor = self.model(1 - x if mirrored else x)
        if not bool(torch.isfinite(logits).all()):
            raise AttackError("the model's logits are not finite; see G27")
        return logits.cpu()

    def draws(self, index: Tensor, name: str) -> SampleStreams:
        """Return a random stream of its own for each of these samples under a name."""
        return SampleStreams(key(self.seed, "audit", name), index)

    @contextmanager
    def streams(self, index: Tensor, name: str) -> Iterator[None]:
        """Bind the model's noise to the streams of these samples under a name."""
        with randomness(self.model, self.draws(index, name)):
            yield

    @contextmanager
    def searching(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Put the model into the state that an attack works in; yield x and y of the samples."""
        with frozen(self.model), self.streams(index, "gradient"):
            yield self.x[index].to(self.device), self.y[index].to(self.device)

"""The subject of an audit: a model, samples and a threat, with repeatable forward passes."""

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
from spikeguard.attacks.threat import Threat, peak_of
from spikeguard.evaluation.estimates import Estimate
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.models.input_dtype import in_dtype_of
from spikeguard.neurons.surrogate import Surrogate
from spikeguard.rng import SampleStreams, key, randomness
from spikeguard.system.pixel_units import reach

__all__ = ["Budget", "Provenance", "Subject"]

Budget = Literal["quick", "full"]
T = TypeVar("T")


@dataclass(frozen=True)
class Provenance:
    """How the settings of the reported attack were chosen.

    Args:
        split: The split they were chosen on, such as "validation"; "fixed" if nothing was chosen.
        trials: Number of settings that were tried, >= 1.

    Raises:
        ValueError: If trials is below 1 or split is empty.
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
    """A model and samples; every forward pass takes its noise from a named stream.

    Args:
        model: A classifier ``model(x [B, ...] in [0, 1]) -> logits [B, K]``.
        x: Samples [N, ...] in [0, 1].
        y: Labels [N].
        threat: The set whose robustness is audited.
        seed: Seed of all random streams.
        steps: Steps of PGD.
        batch_size: Samples per batch.
        budget: "quick" or "full"; checks choose their sizes with :meth:`pick`.
        substitutes: Other models, by name, from which attacks are transferred.
        undefended: A plainly trained model, which the reported attack must break.
        tuned: How the settings of the reported attack were chosen.
        attack: The reported attack; None is APGD.
        rescore: ``(x_adv, y) -> correct [N]``, scored in a fresh process, or None.
        trained_with: The surrogate used in training, one or a mapping by layer; None: unknown.
        looks: Number of looks that share the error rate of a decision, see ``tolerances``.
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
    looks: int = 1

    def __len__(self) -> int:
        return len(self.x)

    def share(self, count: float) -> Estimate:
        """Return a count as a share of the samples, with its interval."""
        return Estimate.share(count, len(self), self.looks)

    def gap(self, higher: Tensor, lower: Tensor) -> Estimate:
        """Return the paired difference of two outcomes [N], with its interval."""
        return Estimate.paired(higher, lower, self.looks)

    def pick(self, *, full: T, quick: T) -> T:
        """Return the size for this audit's budget."""
        return full if self.budget == "full" else quick

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return the cached value of a name; ``make`` computes it at the first call."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: T = self._kept[name]
        return kept

    @cached_property
    def _kept(self) -> dict[str, Any]:
        return {}

    @cached_property
    def classes(self) -> int:
        """Number of classes, K."""
        return self.logits(torch.arange(1)).shape[1]

    @cached_property
    def stochastic(self) -> bool:
        """Whether the model declares that two calls on the same input can differ."""
        return is_stochastic(self.model)

    @cached_property
    def device(self) -> torch.device:
        """Device of the model's parameters."""
        return next((p.device for p in self.model.parameters()), torch.device("cpu"))

    @property
    def reach(self) -> float:
        """Radius at which the ball around any input contains every input of these values."""
        peak = peak_of(self.threat)
        top = peak if peak < math.inf else max(1.0, float(self.x.max()))
        return top * reach(self.threat.norm, self.x[0].numel())

    @cached_property
    def clean(self) -> Tensor:
        """Share of draws on which each clean sample is classified correctly [N]."""
        return self.scored(self.x, "clean")

    def scored(self, x: Tensor, name: str = "score") -> Tensor:
        """Return the share of fresh draws on which each input is classified correctly [N].

        Args:
            x: Inputs that replace the samples [N, ...].
            name: Name of the noise stream of a stochastic model.
        """
        found = evaluate(
            self.model,
            (x, self.y),
            {},
            seed=key(self.seed, "audit", name),
            batch_size=self.batch_size,
            check=False,
            progress=None,
        )
        return found.outcomes["clean"]

    def batches(self) -> Iterator[Tensor]:
        """Yield the indices of the samples, one batch at a time."""
        for start in range(0, len(self), self.batch_size):
            yield torch.arange(start, min(start + self.batch_size, len(self)))

    def logits_of(self, x: Tensor) -> Tensor:
        """Return the model's output for inputs, which it gets in the type of its weights."""
        found: Tensor = self.model(in_dtype_of(self.model, x))
        return found

    def logits(self, index: Tensor, *, name: str = "forward", mirrored: bool = False) -> Tensor:
        """Return the logits of one batch from one forward pass in evaluation mode.

        Args:
            index: Indices of the samples.
            name: Name of the noise stream. Under one name a sample gets the same noise in every
                batch.
            mirrored: Run other images of the same shape, with pixels 1 - x.

        Raises:
            AttackError: If the logits are not finite.
        """
        x = self.x[index].to(self.device)
        with evaluating(self.model), self.streams(index, name), torch.no_grad():
            logits = self.logits_of(1 - x if mirrored else x)
        if not bool(torch.isfinite(logits).all()):
            raise AttackError("the model's logits are not finite; see G27")
        return logits.cpu()

    def draws(self, index: Tensor, name: str) -> SampleStreams:
        """Return a named random stream for each of these samples."""
        return SampleStreams(key(self.seed, "audit", name), index)

    @contextmanager
    def streams(self, index: Tensor, name: str) -> Iterator[None]:
        """Bind the model's noise to the named streams of these samples."""
        with randomness(self.model, self.draws(index, name)):
            yield

    @contextmanager
    def searching(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Freeze the model as an attack does; yield x and y of the samples."""
        with frozen(self.model), self.streams(index, "gradient"):
            yield self.x[index].to(self.device), self.y[index].to(self.device)

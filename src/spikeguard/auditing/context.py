"""What all checks share: the model, the samples, and every attack made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from spikeguard.attacks import (
    APGD,
    FGSM,
    PGD,
    Attack,
    AttackError,
    Backprop,
    EoT,
    Gradient,
    Loss,
    SwapSurrogate,
    Threat,
    ThreatViolation,
    UniformNoise,
    cross_entropy,
    describe,
    evaluating,
    frozen,
)
from spikeguard.attacks.base import is_stochastic
from spikeguard.attacks.square import Square
from spikeguard.evaluation import evaluate
from spikeguard.neurons import Surrogate
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["EOT", "Attacked", "Budget", "Context", "Provenance"]

Budget = Literal["quick", "full"]
T = TypeVar("T")

EOT = 4  # gradients averaged in every step against a stochastic model


@dataclass(frozen=True)
class Attacked:
    """The outcome of one attack.

    Attributes:
        right: Share of noise draws on which each sample is still right [N]; 0 or 1 without noise.
        x_adv: The adversarial inputs [N, ...].
    """

    right: Tensor
    x_adv: Tensor

    @property
    def accuracy(self) -> float:
        """Share that is still right."""
        return float(self.right.mean())


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
class Context:
    """One audit's subject. Attacks are made when a check first asks for them, and kept.

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
    made: dict[Attack, Attacked] = field(default_factory=dict, init=False, repr=False)
    violations: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def pick(self, *, full: T, quick: T) -> T:
        """Return the size for this audit's budget."""
        return full if self.budget == "full" else quick

    def first(self, n: int) -> Context:
        """Return the audit of the first n samples, with attacks of its own; of all, the same."""
        if n >= len(self):
            return self
        if n not in self._parts:
            part = replace(self, x=self.x[:n], y=self.y[:n])
            object.__setattr__(part, "violations", self.violations)
            self._parts[n] = part
        return self._parts[n]

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
    def _parts(self) -> dict[int, Context]:
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

    def gradient(self, surrogate: Surrogate | float | None = None) -> Gradient:
        """Return the attacker's gradient; a stochastic model's is averaged over ``EOT`` draws."""
        inner: Gradient = Backprop() if surrogate is None else SwapSurrogate(surrogate)
        return EoT(EOT, inner) if self.stochastic else inner

    def fgsm(self) -> Attack:
        """Return the one-step attack."""
        return FGSM(self.threat, gradient=self.gradient())

    def noise(self) -> Attack:
        """Return the baseline: the worst of ten random points of the threat set."""
        return UniformNoise(self.threat, draws=10)

    def pgd(
        self,
        *,
        eps: float | None = None,
        steps: int | None = None,
        surrogate: Surrogate | float | None = None,
        gradient: Gradient | None = None,
        restarts: int = 1,
        random_start: bool = True,
        step_size: float | None = None,
        loss: Loss = cross_entropy,
    ) -> Attack:
        """Return PGD; by default at the audited eps, with the surrogate as handed over."""
        return PGD(
            self.threat if eps is None else replace(self.threat, eps=eps),  # type: ignore[type-var]
            steps=self.steps if steps is None else steps,
            restarts=restarts,
            gradient=self.gradient(surrogate) if gradient is None else gradient,
            random_start=random_start,
            step_size=step_size,
            loss=loss,
        )

    def reference(self) -> Attack:
        """Return the attack whose result is reported: the one handed over, or APGD."""
        return self.attack or APGD(self.threat, steps=50, gradient=self.gradient())

    @property
    def tries(self) -> int:
        """Restarts of the strongest attack; noise makes every one of them dear."""
        return self.pick(full=10, quick=2 if self.stochastic else 4)

    def strongest(self) -> Attack:
        """Return the reported attack with several restarts, if it can be restarted."""
        attack = self.reference()
        if not hasattr(attack, "restarts"):
            return attack
        several: Attack = replace(attack, restarts=self.tries)  # type: ignore[type-var]
        return several

    def square(self) -> Attack:
        """Return the attack without gradients."""
        return Square(self.threat, queries=self.pick(full=1000, quick=300), rescale=True)

    def white(self) -> list[Attacked]:
        """Return the outcomes of the gradient attacks: FGSM, PGD and the strongest."""
        return [self.attacked(attack) for attack in (self.fgsm(), self.pgd(), self.strongest())]

    def attacked(self, attack: Attack) -> Attacked:
        """Make an attack, or return what it did before; all attacks share their random numbers.

        Raises:
            ThreatViolation: If it left its threat set; also noted in ``violations``.
            AttackError: If logits or gradients are not finite, or there is no gradient.
        """
        if attack not in self.made:
            try:
                result = evaluate(
                    self.model,
                    (self.x, self.y),
                    {"audit": attack},
                    seed=self.seed,
                    batch_size=self.batch_size,
                    keep_adversarial=True,
                )
            except ThreatViolation as error:
                self.violations[str(describe(attack))] = str(error)
                raise
            self.made[attack] = Attacked(result.outcomes["audit"], result.adversarial["audit"])
        return self.made[attack]

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

    def upper_bound(self) -> float | None:
        """Return the accuracy under the per-sample worst of all attacks made at the audited eps.

        Of a noisy model, the choice for each sample is scored again and can do worse than one
        attack alone; then it is that attack's.
        """
        made = self.reported()
        if not made:
            return None
        least = min(outcome.accuracy for outcome in made)
        return min(float(self.worst(made).mean()), least)

    def reported(self) -> list[Attacked]:
        """Return the outcomes of all attacks made at the audited eps."""
        return [out for attack, out in self.made.items() if attack.threat.eps == self.threat.eps]

    def worst(self, outcomes: list[Attacked]) -> Tensor:
        """Return the per-sample worst of several attacks [N].

        With noise the lowest of several noisy scores is too low, so the input it chose is scored
        once more on fresh draws.
        """
        rights = torch.stack([outcome.right for outcome in outcomes])
        lowest, which = rights.min(0)
        if not self.stochastic:
            return lowest
        x_adv = torch.stack([outcome.x_adv for outcome in outcomes])
        chosen = x_adv[which, torch.arange(len(self))]
        return self.scored(chosen, "worst")

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

    @contextmanager
    def streams(self, index: Tensor, name: str) -> Iterator[None]:
        """Bind the model's noise to the streams of these samples under a name."""
        streams = SampleStreams(key(self.seed, "audit", name), index)
        with randomness(self.model, streams):
            yield

    @contextmanager
    def searching(self, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Put the model into the state that an attack works in; yield x and y of the samples."""
        with frozen(self.model), self.streams(index, "gradient"):
            yield self.x[index].to(self.device), self.y[index].to(self.device)

    def settings(self) -> dict[str, Any]:
        """Return how the audit was made, as plain data."""
        return {
            "samples": len(self),
            "seed": self.seed,
            "steps": self.steps,
            "budget": self.budget,
            "threat": {"norm": self.threat.norm, "eps": self.threat.eps},
            "stochastic": self.stochastic,
            "eot": EOT if self.stochastic else 1,
            "attacks": len(self.made),
        }

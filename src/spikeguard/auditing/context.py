"""What all checks share: the model, the samples, and every attack made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.attacks import (
    FGSM,
    PGD,
    Attack,
    AttackError,
    Backprop,
    EoT,
    Gradient,
    SwapSurrogate,
    Threat,
    ThreatViolation,
    UniformNoise,
    describe,
    evaluating,
    frozen,
)
from spikeguard.attacks.base import is_stochastic
from spikeguard.auditing.findings import Finding
from spikeguard.evaluation import evaluate
from spikeguard.neurons import Surrogate
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["EOT", "Attacked", "Check", "Context", "judged", "reason", "title"]

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
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    threat: Threat
    seed: int = 0
    steps: int = 20
    batch_size: int = 64
    made: dict[Attack, Attacked] = field(default_factory=dict, init=False, repr=False)
    violations: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.x)

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
    ) -> Attack:
        """Return PGD; by default at the audited eps, with the surrogate as handed over."""
        return PGD(
            self.threat if eps is None else replace(self.threat, eps=eps),  # type: ignore[type-var]
            steps=self.steps if steps is None else steps,
            restarts=restarts,
            gradient=self.gradient(surrogate) if gradient is None else gradient,
            random_start=random_start,
        )

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
        again = evaluate(
            self.model,
            (chosen, self.y),
            {},
            seed=key(self.seed, "audit", "worst"),
            batch_size=self.batch_size,
        )
        return again.outcomes["clean"]

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
            "threat": {"norm": self.threat.norm, "eps": self.threat.eps},
            "stochastic": self.stochastic,
            "eot": EOT if self.stochastic else 1,
            "attacks": len(self.made),
        }


Check = Callable[[Context], Finding]


def title(check: Check) -> str:
    """Return the first line of a check's docstring: what should hold."""
    return (check.__doc__ or check.__name__).partition("\n")[0].strip().rstrip(".")


def reason(error: Exception) -> str:
    """Return what an exception says, in one line."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def judged(
    code: str,
    check: Check,
    *,
    failed: bool,
    measured: str,
    threshold: str,
    sound: str,
    fault: str,
    remedy: str,
    evidence: Mapping[str, Any],
) -> Finding:
    """Return a finding that means ``sound`` or, if it failed, ``fault`` with its remedy."""
    return Finding(
        code,
        title(check),
        "fail" if failed else "pass",
        measured,
        threshold,
        fault if failed else sound,
        remedy if failed else "",
        evidence,
    )

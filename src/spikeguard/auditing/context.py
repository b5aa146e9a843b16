"""The state that all checks share: attacks on the audited model, each run once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from spikeguard.attacks.base import Attack, describe
from spikeguard.attacks.event_suites import event_search
from spikeguard.attacks.event_threats.base import EventThreat
from spikeguard.attacks.gradients.base import Backprop, EoT, Gradient, SwapSurrogate, unwrap
from spikeguard.attacks.gradients.nes import NES
from spikeguard.attacks.losses import Loss, cross_entropy
from spikeguard.attacks.model_access import DEFAULT_EOT
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.noise import UniformNoise
from spikeguard.attacks.searches.pgd import FGSM, PGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.threat import ThreatViolation
from spikeguard.auditing.subject import Subject
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.evaluation.worst_case import lowest, worst_of
from spikeguard.neurons.surrogate import Surrogate

__all__ = ["EOT", "Attacked", "Context"]

EOT = DEFAULT_EOT


@dataclass(frozen=True)
class Attacked:
    """The outcome of one attack.

    Attributes:
        right: Share of draws on which each sample is still classified correctly [N]; 0 or 1
            without noise.
        x_adv: The adversarial inputs [N, ...].
    """

    right: Tensor
    x_adv: Tensor

    @property
    def accuracy(self) -> float:
        """Share of samples that are still classified correctly."""
        return float(self.right.mean())


@dataclass(frozen=True, eq=False)
class Context(Subject):
    """The subject of one audit, with a cache of the attacks on it.

    An attack runs when a check first needs it. The arguments are those of
    :class:`~spikeguard.auditing.subject.Subject`.
    """

    made: dict[Attack, Attacked] = field(default_factory=dict, init=False, repr=False)
    violations: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    found: dict[Attack, Attacked] = field(default_factory=dict, init=False, repr=False)

    def first(self, n: int) -> Context:
        """Return a context of the first n samples; self if it has no more.

        Both share what attacks found: an attack on more samples runs only on the new ones.
        """
        if n >= len(self):
            return self
        if n not in self.parts:
            part = replace(self, x=self.x[:n], y=self.y[:n])
            object.__setattr__(part, "violations", self.violations)
            object.__setattr__(part, "found", self.found)
            self.parts[n] = part
        return self.parts[n]

    @cached_property
    def parts(self) -> dict[int, Context]:
        """The contexts that :meth:`first` has returned, by their number of samples."""
        return {}

    def gradient(self, surrogate: Surrogate | float | None = None) -> Gradient:
        """Return the attacker's gradient, averaged over ``EOT`` draws for a stochastic model."""
        inner: Gradient = Backprop() if surrogate is None else SwapSurrogate(surrogate)
        return EoT(EOT, inner) if self.stochastic else inner

    def fgsm(self) -> Attack:
        """Return the single-step attack."""
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
        """Return PGD; by default at the audited eps, with the model's own surrogate."""
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
        """Return the reported attack: the one passed to the audit, or APGD; on events a search."""
        return self.attack or self._adaptive()

    def _adaptive(self) -> Attack:
        if self.on_events:
            return event_search(self.threat, 50, self.gradient())
        return APGD(self.threat, steps=50, gradient=self.gradient())

    @property
    def on_events(self) -> bool:
        """Whether the threat set is one of this package's on event grids."""
        return isinstance(self.threat, EventThreat)

    @property
    def tries(self) -> int:
        """Restarts of the strongest attack; fewer under noise, where each is expensive."""
        return self.pick(full=10, quick=2 if self.stochastic else 4)

    def strongest(self) -> Attack:
        """Return the reported attack with several restarts, if another one differs from the first.

        It keeps its own restarts where they are more.
        """
        attack = self.reference()
        if not hasattr(attack, "restarts") or not getattr(attack, "random_start", True):
            return attack
        tries = max(self.tries, attack.restarts)
        several: Attack = replace(attack, restarts=tries)  # type: ignore[type-var]
        return several

    def blind(self) -> tuple[str, Attack]:
        """Return the name of a gradient-free attack and the attack: Square; NES without an image.

        Under L1 and on events NES is the gradient of a search.
        """
        queries = self.pick(full=1000, quick=300)
        if self.threat.norm in ("linf", "l2"):
            return "Square", Square(self.threat, queries=queries, rescale=True)
        differences = NES(samples=16, sigma=0.05)
        if self.on_events:
            return "NES", event_search(self.threat, queries // 33, differences)
        return "NES", APGD(self.threat, steps=queries // 33, gradient=differences)

    def white(self, *, own: bool = False) -> list[Attacked]:
        """Return the outcomes of the gradient attacks: FGSM, PGD and the strongest.

        APGD replaces a reported attack that uses no gradient; with ``own``, also one that uses
        another gradient than the network's own.
        """
        strongest = self.strongest()
        gradient = unwrap(getattr(strongest, "gradient", None))
        if gradient is None or (own and not isinstance(gradient, Backprop)):
            strongest = self._adaptive()
        return [self.attacked(attack) for attack in (self.fgsm(), self.pgd(), strongest)]

    def attacked(self, attack: Attack) -> Attacked:
        """Run an attack, or return its cached outcome; all attacks share their random numbers.

        Raises:
            ThreatViolation: If the attack left its threat set; also added to ``violations``.
            AttackError: If logits or gradients are not finite, or no gradient exists.
        """
        if attack not in self.made:
            try:
                self.made[attack] = self._extended(attack)
            except ThreatViolation as error:
                self.violations[str(describe(attack))] = str(error)
                raise
        return self.made[attack]

    def _extended(self, attack: Attack) -> Attacked:
        """Attack the samples that no context of the same samples has attacked yet.

        A sample's random streams are named by its index, so it does not matter which samples run
        together.
        """
        old, n = self.found.get(attack), len(self)
        done = 0 if old is None else len(old.right)
        if done < n:
            options = EvaluationOptions(
                seed=self.seed, batch_size=self.batch_size, keep_adversarial=True
            )
            plan = plan_evaluation(self.model, (self.x, self.y), {"audit": attack}, options)
            right, x_adv = ([], []) if old is None else ([old.right], [old.x_adv])
            for start in range(done, n, self.batch_size):
                index = torch.arange(start, min(start + self.batch_size, n))
                shard = plan.rows(index)
                right.append(torch.from_numpy(shard["right:audit"]))
                x_adv.append(torch.from_numpy(shard["x:audit"]))
            old = self.found[attack] = Attacked(torch.cat(right), torch.cat(x_adv))
        assert old is not None
        return Attacked(old.right[:n], old.x_adv[:n])

    def upper_bound(self) -> float | None:
        """Return the accuracy under the per-sample worst of all attacks made at the audited eps.

        Never above the worst of some of these attacks that a check has computed before.
        """
        made = self.reported()
        if not made:
            return None
        self.worst(made)
        return float(lowest(self.worsts).mean())

    def reported(self) -> list[Attacked]:
        """Return the outcomes of all attacks made at the audited eps."""
        return [out for attack, out in self.made.items() if attack.threat.eps == self.threat.eps]

    def made_on_any(self) -> list[Attacked]:
        """Return the outcomes of all attacks made at the audited eps, each on the first samples.

        A check may attack fewer samples than this context has, or more at a later look.
        """
        every = self.made | self.found
        return [out for attack, out in every.items() if attack.threat.eps == self.threat.eps]

    def worst(self, outcomes: list[Attacked]) -> Tensor:
        """Return the per-sample worst of several attacks made at the audited eps [N].

        The lowest of several noisy scores is biased low, so under noise the chosen input is scored
        again on fresh draws. Where this leaves more than one of the attacks alone, that attack is
        the worst: the mean is never above that of a part.
        """
        found = worst_of(
            [outcome.right for outcome in outcomes],
            [outcome.x_adv for outcome in outcomes],
            self.x,
            (lambda x: self.scored(x, "worst")) if self.stochastic else None,
        )
        self.worsts.append(found)
        return found

    @cached_property
    def worsts(self) -> list[Tensor]:
        """The outcomes [N] that :meth:`worst` has returned; the bound is not above any of them."""
        return []

    def settings(self) -> dict[str, Any]:
        """Return the settings of the audit as plain data."""
        return {
            "samples": len(self),
            "seed": self.seed,
            "steps": self.steps,
            "budget": self.budget,
            "threat": {"norm": self.threat.norm, "eps": self.threat.eps},
            "stochastic": self.stochastic,
            "eot": EOT if self.stochastic else 1,
            "attacks": len(self.made),
            "reported": describe(self.reference()),
        }

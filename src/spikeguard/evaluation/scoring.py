"""Scorer: the share of draws on which a model classifies given inputs correctly."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.attacks.base import NoGradientError
from spikeguard.attacks.gradients.zero_gradients import zero_gradients
from spikeguard.attacks.model_access import classify, evaluating, frozen
from spikeguard.attacks.threat import Threat, ThreatViolation
from spikeguard.evaluation.worst_case import CHOICE, REPORT
from spikeguard.kernels.selection import unfused
from spikeguard.rng import SampleStreams, key, randomness

__all__ = ["Scorer"]


@dataclass(frozen=True)
class Scorer:
    """Scores inputs on noise draws that no search has seen.

    All inputs of a sample are scored on the same draws. The passes are in float32 and without fused
    layers, whatever the search used.

    Attributes:
        model: The classifier.
        seed: Seed of the draws.
        draws: Noise draws for each input.
        stochastic: Whether the model draws noise.
        classes: The numbers of classes K of all logits so far, one if the model is consistent.
    """

    model: nn.Module
    seed: int
    draws: int
    stochastic: bool
    classes: set[int] = field(default_factory=set, compare=False)

    @torch.no_grad()
    def share(
        self, x: Tensor, y: Tensor, index: Tensor, *, name: str = CHOICE, draws: int | None = None
    ) -> Tensor:
        """Return the share of draws on which each sample is correct, float64 [B], on the CPU.

        Args:
            x: Inputs [B, ...].
            y: Labels [B].
            index: Indices of the samples in the data set [B].
            name: Name of the draws: ``CHOICE`` or ``REPORT``.
            draws: How many; by default the scorer's own number.
        """
        count = self.draws if draws is None else draws
        streams = SampleStreams(key(self.seed, "score", name), index)
        correct = torch.zeros(len(x), dtype=torch.float64)
        exact = torch.autocast(x.device.type, enabled=False)
        with evaluating(self.model), randomness(self.model, streams), exact, unfused():
            for _ in range(count):
                logits = classify(self.model, x, y)
                self.classes.add(logits.shape[1])
                correct += (logits.argmax(1) == y).cpu()
        return correct / count

    def adversarial(
        self,
        name: str,
        threat: Threat,
        found: Tensor,
        x: Tensor,
        y: Tensor,
        index: Tensor,
        draws: int | None = None,
    ) -> Tensor:
        """Check that an attack's results are in its threat set; return their shares.

        Raises:
            ThreatViolation: If an input is outside the threat set.
        """
        try:
            threat.check(found, x)
        except ThreatViolation as error:
            raise ThreatViolation(f"evaluate: attack {name!r}: {error}") from error
        return self.share(found, y, index, draws=draws)

    def reported(self, x: Tensor, y: Tensor, index: Tensor, shares: Tensor) -> Tensor:
        """Return the shares to report for one batch; ``shares`` are those of the choice."""
        return self.share(x, y, index, name=REPORT) if self.stochastic else shares

    def zero_gradient(self, x: Tensor, y: Tensor, index: Tensor) -> np.ndarray[Any, Any]:
        """Return for each sample whether its input gradient is exactly zero [B]."""
        streams = SampleStreams(key(self.seed, "zero gradient"), index)
        with frozen(self.model), randomness(self.model, streams):
            try:
                return zero_gradients(self.model, x, y).cpu().numpy()
            except NoGradientError:
                return np.ones(len(x), dtype=bool)

"""Analysis ``jacobian``: spectral norm, R_adv within the ball, adversarial over random change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from spikeguard.analysis.attacked import attacked, recorded
from spikeguard.analysis.base import Batch, Passes, Section, batches, count_of, settings_of
from spikeguard.analysis.jacobian_charts import charts_of, norms_in_words, table_of
from spikeguard.analysis.measurement import Measurement
from spikeguard.analysis.plots import Plot, Table
from spikeguard.analysis.spectral_norm import jacobians, spectral_norms
from spikeguard.analysis.theory import vulnerability_bound, vulnerability_ratio
from spikeguard.attacks.base import FORWARD, Attack, cost
from spikeguard.attacks.losses import cross_entropy
from spikeguard.attacks.model_access import classify
from spikeguard.attacks.threat_names import is_event_norm
from spikeguard.data.images import Data, as_image_set
from spikeguard.system.progress import ProgressCallback

__all__ = ["Jacobian"]

_CLASSES = 10  # assumed for the cost: one backward pass a class
_QUANTITIES = {
    "norm": ("logits a pixel unit", "spectral norm of the Jacobian, |J|"),
    "change": ("1", "relative change of |J|^2 in the last step of the power iteration"),
    "residual": ("1", "relative residual of the power iteration"),
    "converged": ("", "whether the power iteration converged"),
    "r_adv": ("logits squared", "squared change of the logits by the attack"),
    "bound": ("logits squared", "eps^2 |J|^2; NaN: the threat set has no radius in pixel units"),
    "bound_of_norm": ("logits squared", "the same times the pixels of an image, for Linf; TGO"),
    "loss": ("nats", "cross-entropy of the clean image"),
    "loss_rise": ("nats", "rise of the cross-entropy by the attack"),
    "ratio_gradient": ("1", "3 |g|_1^2 / |g|_2^2 of the gradient of the true class's logit"),
    "ratio_bound": ("1", "3 |g|_0"),
    "ratio": ("1", "adversarial over random squared change of that logit; NaN: no random change"),
}


@dataclass(frozen=True)
class Jacobian:
    """Measure the Jacobian of the logits on clean images, and what the attack makes of it.

    Args:
        attack: The attack; R_adv is what it reaches, which bounds the maximum from below.
        limit: Number of images; None for all.
        draws: Random points of the threat set for each image.
        steps: Largest number of steps of the power iteration.

    Raises:
        ValueError: If ``draws`` or ``steps`` is below 1.

    Source: TGO (arXiv:2602.20548) Eqs. 7 to 11; gradient-trail (arXiv:2509.23762) Theorem 1.
    """

    attack: Attack
    limit: int | None = 128
    draws: int = 32
    steps: int = 500

    name: ClassVar[str] = "jacobian"
    title: ClassVar[str] = "Jacobian of the logits"
    section: ClassVar[Section] = "gradients"
    source: ClassVar[str] = "TGO, Eqs. 7 to 11; gradient-sparsity-trail paper, Theorem 1"
    about: ClassVar[str] = (
        "Spectral norm of the Jacobian through the network's own surrogate: the largest change of "
        "the logits for a small change of the image, if the surrogate were the network. R_adv is "
        "the squared change of the logits that the attack reaches in the network itself."
    )

    def __post_init__(self) -> None:
        for name in ("draws", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"jacobian: {name} must be >= 1, got {getattr(self, name)}.")

    def __call__(
        self,
        model: nn.Module,
        data: Data,
        *,
        seed: int = 0,
        batch_size: int = 64,
        progress: ProgressCallback | None = None,
    ) -> Measurement:
        """Return every number of every image along the axis "image"."""
        n = count_of(as_image_set(data), self.limit)
        parts = [
            self._batch(model, batch, seed)
            for batch in batches(
                model, data, limit=n, batch_size=batch_size, progress=progress, what="Jacobians"
            )
        ]
        found = {
            name: (torch.cat([part[name] for part in parts]).numpy(), ["image"], *words)
            for name, words in _QUANTITIES.items()
        }
        axes: dict[str, ArrayLike] = {"image": np.arange(n)}
        return Measurement.of(self.name, settings_of(self, seed), n, axes, **found)

    def _batch(self, model: nn.Module, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Return the numbers of a batch, each [B] on the CPU."""
        x, y, threat = batch.x, batch.y, self.attack.threat
        rows = jacobians(model, x, y, batch.streams(seed, "noise"))
        own = rows[torch.arange(len(y)), y]
        norms = spectral_norms(rows, steps=self.steps)
        pixels = x[0].numel()

        def logits(images: Tensor) -> Tensor:
            with recorded(model, batch, seed):  # the same noise in every call
                return classify(model, images, y).double()

        def change(images: Tensor) -> Tensor:
            return (logits(images) - clean).gather(1, y[:, None])[:, 0].square()

        clean, streams = logits(x), batch.streams(seed, "random")
        adversarial = attacked(model, batch, self.attack, seed)
        hit = logits(adversarial)
        random = torch.stack([change(threat.sample(x, streams)) for _ in range(self.draws)]).mean(0)
        eps = torch.nan if is_event_norm(threat.norm) else threat.eps  # a budget is no radius
        bound = eps**2 * norms.norm.square()
        known = torch.ones(len(y), device=x.device) if threat.norm == "linf" else torch.nan
        found = {
            "norm": norms.norm,
            "change": norms.change,
            "residual": norms.residual,
            "converged": norms.converged,
            "r_adv": (hit - clean).square().sum(1),
            "bound": bound,
            "bound_of_norm": bound * (pixels if threat.norm == "linf" else 1),
            "loss": cross_entropy(clean, y),
            "loss_rise": cross_entropy(hit, y) - cross_entropy(clean, y),
            "ratio_gradient": vulnerability_ratio(own) * known,
            "ratio_bound": vulnerability_bound(own) * known,
            "ratio": torch.where(random > 0, change(adversarial) / random, torch.nan),
        }
        return {name: values.cpu() for name, values in found.items()}

    def passes(self, samples: int, T: int) -> Passes:
        """Return the attack, ten backward passes, and the forward passes of the draws."""
        once = FORWARD + (1 - FORWARD) * _CLASSES + cost(self.attack)
        return Passes(forward=samples * (self.draws + 3), gradients=samples * once)

    @staticmethod
    def result(found: Mapping[str, Measurement]) -> str:
        """Return the mean spectral norm of every network."""
        return norms_in_words(found)

    @staticmethod
    def table(found: Mapping[str, Measurement]) -> Table:
        """Return a row for every network."""
        return table_of(found)

    @staticmethod
    def plots(found: Mapping[str, Measurement]) -> list[Plot]:
        """Return the distribution of the norms, R_adv against its bound, and Theorem 1's ratio."""
        return charts_of(found)

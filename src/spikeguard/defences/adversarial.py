"""Adversarial training (AT): train on adversarial images instead of clean ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.searches.pgd import FGSM, PGD, RFGSM
from spikeguard.attacks.threat import THREATS
from spikeguard.defences.piece import Piece
from spikeguard.encoders.input_space import space_of
from spikeguard.system.pixel_units import radius_problem

__all__ = ["AT"]

_PGD2: dict[str, Any] = {"eps": 2 / 255, "steps": 2, "step_size": 1 / 255}
_PRESETS: dict[str, dict[str, Any]] = {
    "stable-snn": {"eps": 4 / 255, "jitter": 0.001},
    "stog": {"eps": 2 / 255},
    "feel": _PGD2,
    "snn-rat": _PGD2,
    "tgo": _PGD2,
    "sr": {"eps": 8 / 255, "steps": 7, "step_size": 0.01},
    "madry": {"eps": 8 / 255, "steps": 7, "step_size": 2 / 255},
}


@dataclass(frozen=True)
class AT(Piece):
    r"""Adversarial training: the cross-entropy is taken on attacked images only.

    .. math:: \min_\theta\; E\; L(f_\theta(x'), y), \quad
              x' \approx \arg\max_{\|x' - x\| \le \epsilon} L(f_\theta(x'), y)

    The attack runs with the network in evaluation mode and neuron noise on; the training pass on
    the adversarial images runs in training mode. One step without a random start is FGSM, or with a
    ``jitter`` the RFGSM of the stable-SNN paper. Any other setting is PGD.

    Args:
        eps: Radius of the threat set, in input units, >= 0; 0 is plain training.
        steps: Gradient steps, >= 1.
        step_size: Length of one PGD step, in input units; None is 2.5 eps / steps. TGO prints
            "step size k=2", read as 2 steps; FEEL-SNN's code, whose settings it shares, takes
            1/255.
        random_start: Start at a random point of the threat set; None is False for one step, True
            for more.
        norm: "linf", "l2" or "l1".
        jitter: Standard deviation of the Gaussian start of a single step, in input units, in
            [0, 1]; 0 is no jitter. 0.001 with eps 4/255 is what the stable-SNN paper calls RFGSM.
            The paper's code does not project, so a pixel can end further than eps from the image;
            here the result is projected.

    Raises:
        ValueError: If a number is out of range, the norm is unknown, FGSM is given a step size, or
            a jitter is combined with several steps or a random start.

    Example:
        >>> AT.preset("feel") == AT(eps=2 / 255, steps=2, step_size=1 / 255)
        True

    Source: Goodfellow et al., 2015, arXiv:1412.6572 (FGSM); Madry et al., 2018, arXiv:1706.06083
        (PGD).
    """

    name: ClassVar[str] = "at"

    eps: float
    steps: int = 1
    step_size: float | None = None
    random_start: bool | None = None
    norm: str = "linf"
    jitter: float = 0.0

    @classmethod
    def example(cls) -> Self:
        """Return an instance for small images, for the contract tests."""
        return cls(eps=0.1, steps=2)

    def __post_init__(self) -> None:
        if not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"AT: eps is a radius >= 0 in input units, got {self.eps:g}.")
        if radius_problem(self.norm, self.eps):
            raise ValueError(f"AT: {radius_problem(self.norm, self.eps)}")
        if self.steps < 1:
            raise ValueError(f"AT: steps must be >= 1, got {self.steps}.")
        if self.norm not in THREATS:
            raise ValueError(f"AT: norm is one of {', '.join(THREATS)}; got {self.norm!r}.")
        if self.step_size is not None:
            if not (self.step_size > 0 and math.isfinite(self.step_size)):
                raise ValueError(f"AT: step_size must be positive, got {self.step_size:g}.")
            if self._is_fgsm:
                raise ValueError(
                    "AT: one step without a random start is FGSM, whose step is eps, got "
                    f"step_size={self.step_size:g}; leave it out or set random_start=True."
                )
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"AT: jitter is a deviation in [0, 1], got {self.jitter:g}.")
        if self.jitter > 0 and not self._is_fgsm:
            raise ValueError(
                f"AT: jitter={self.jitter:g} is the start of a single step; set steps=1 and leave "
                "random_start out, or leave jitter out."
            )

    @classmethod
    def preset(cls, source: str) -> Self:
        """Return adversarial training with the settings of a source.

        Args:
            source: "stable-snn" (one step of 4/255 after a jitter of 0.001), "stog" (FGSM 2/255),
                "feel" or "snn-rat" (PGD-2, 2/255, steps of 1/255), "tgo" (the same: its text gives
                2/255 and "step size k=2", the rest is inferred), "sr" (PGD-7, 8/255, steps of
                0.01), "madry" (PGD-7, 8/255, steps of 2/255).

        Raises:
            ValueError: If the source is unknown.
        """
        if source not in _PRESETS:
            raise ValueError(f"AT: presets are {', '.join(_PRESETS)}; got {source!r}.")
        return cls(**_PRESETS[source])

    @property
    def attack(self) -> Attack:
        """The attack that crafts the training images."""
        threat = THREATS[self.norm](self.eps)
        if self.jitter > 0:
            return RFGSM(threat, "stable-snn-train", alpha=self.jitter)
        if self._is_fgsm:
            return FGSM(threat)
        start = True if self.random_start is None else self.random_start
        return PGD(threat, steps=self.steps, step_size=self.step_size, random_start=start)

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        """Return adversarial images; the model, its modes and its statistics are unchanged."""
        attack, high = self.attack, space_of(model).high
        if high != 1:
            threat = THREATS[self.norm](self.eps, high)
            attack = replace(attack, threat=threat)  # type: ignore[type-var]
        return attack(model, x, y, generator=generator)

    @property
    def _is_fgsm(self) -> bool:
        return self.steps == 1 and not self.random_start

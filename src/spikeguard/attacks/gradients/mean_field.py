"""MeanField: the gradient of a noisy network's mean field, one pass without random draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from spikeguard.attacks.gradients.base import BACKPROP, Gradient
from spikeguard.attacks.losses import Loss
from spikeguard.attacks.model_access import frozen
from spikeguard.rng import RandomSource
from spikeguard.system.swapping import swapped

__all__ = ["MeanField", "draws_for", "has_mean_field", "mean_field"]

_FEWEST, _MOST = 4, 32  # draws of EoT after the mean field


@dataclass(frozen=True)
class MeanField:
    r"""Differentiate the network whose random parts are replaced by their means.

    A membrane with Gaussian noise returns its spike probability instead of a spike, and the reset
    uses it too:

    .. math::
        p[t] = \Phi\Big(\frac{v[t] - v_{th}}{\sigma}\Big), \qquad
        u[t] = (1 - p[t])\,v[t] \ \text{ or } \ v[t] - v_{th}\,p[t]

    This is smooth in v, so its derivative is exact: no surrogate, and the reset is differentiated
    even with ``detach_reset``. Gates of ``StoG`` and spikes of ``Poisson`` become their means.
    Layers that are deterministic in the phase of the call spike as usual, and ``inner``
    differentiates them.

    The losses are those of the mean field, so a search compares its points without noise: it
    returns the point of highest mean-field loss. A search does not stop at a point whose mean-field
    logits are wrong; ``evaluate`` decides misclassification on draws of the model itself. Nothing
    is drawn, so ``EoT`` around it repeats the same pass.

    Args:
        inner: The gradient of the network of means, for its deterministic spiking layers.

    Raises:
        ValueError: At a call, if the model draws nothing in the current phase, or has a random part
            without a mean (an attribute ``averaged``).

    Source: SpikeGuard's own; spike probabilities of a noisy membrane: Gerstner et al., "Neuronal
        Dynamics", 2014, chapter 9; Ma et al., "Exploiting noise as a resource for computation and
        learning in spiking neural networks", Patterns 2023.
    """

    inner: Gradient = BACKPROP
    of_another_function: ClassVar[bool] = True

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the losses [B] of the mean field, and their input gradient, shaped like ``x``."""
        with mean_field(model):
            return self.inner(model, x, y, loss)


@contextmanager
def mean_field(model: nn.Module) -> Iterator[None]:
    """Replace every random part of a model by its mean inside the block.

    A random part is a module with a true ``stochastic``; one that can be replaced has an attribute
    ``averaged``, False outside the block.

    Raises:
        ValueError: If no module draws in the current phase, or one has no attribute ``averaged``.
    """
    drawing = _random_parts(model)
    if not drawing:
        raise ValueError(
            "MeanField: the model draws no noise during an attack, so it has no mean field; use "
            "Backprop(), or a gradient for spiking networks such as ASSG()."
        )
    for name, module in drawing.items():
        if not hasattr(module, "averaged"):
            raise ValueError(
                f"MeanField: the mean of {name or 'the model'} ({type(module).__name__}) is not "
                "known; use EoT(32), or give the module an attribute averaged (see docs)."
            )
    with swapped(drawing.values(), "averaged", True):
        yield


def has_mean_field(model: nn.Module) -> bool:
    """Whether ``MeanField`` applies: the model draws during an attack, and all means are known."""
    with frozen(model):
        drawing = _random_parts(model).values()
        return bool(drawing) and all(hasattr(module, "averaged") for module in drawing)


def _random_parts(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules that draw in the current phase.

    A module that contains one, and has no random source of its own, only passes this on.
    """
    drawing = {n: m for n, m in model.named_modules() if getattr(m, "stochastic", False)}
    return {
        name: module
        for name, module in drawing.items()
        if isinstance(getattr(module, "random", None), RandomSource)
        or not any(part is not module and part in drawing.values() for part in module.modules())
    }


def draws_for(gradients: float, budget: float) -> int:
    """Return the draws of ``EoT`` that a budget pays after the mean field, 4 to 32.

    Args:
        gradients: Gradient evaluations that each draw costs, for example the number of samples
            left if the budget is that of a step.
        budget: Gradient evaluations that all draws together may cost.
    """
    return int(min(_MOST, max(_FEWEST, budget / max(1.0, gradients))))

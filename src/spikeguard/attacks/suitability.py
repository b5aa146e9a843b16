"""suitable(): the attacks whose gradient applies to a model."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import SwapSurrogate, nested
from spikeguard.attacks.gradients.mean_field import MeanField, has_mean_field
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout, answers_in_spikes
from spikeguard.attacks.gradients.spiking_rules import BPTR, HART, PDSG, RGA, prescribable
from spikeguard.neurons.modes import spiking_layers

__all__ = ["suitable"]

_SWAPS = (SwapSurrogate, ASSG)  # need a surrogate that can be replaced
_RULES = (BPTR, RGA, HART, PDSG, ANNTwin)  # need layers whose recurrence is known


def suitable(
    attacks: Mapping[str, Attack], model: nn.Module, example: Tensor | None = None
) -> tuple[dict[str, Attack], tuple[str, ...]]:
    """Drop the attacks whose gradient does not apply to a model.

    ``SwapSurrogate`` and ``ASSG`` need spiking layers, of this package or of a framework supported
    by ``foreign``. The other gradients for spiking networks need layers with a known recurrence.
    So does ``ASSG`` without the path through time or the reset. ``MembraneReadout`` needs a last
    layer that spikes, ``MeanField`` a model that draws noise during an attack and whose random
    parts all have a known mean.

    Args:
        attacks: ``{name: attack}``.
        model: The model to attack.
        example: Inputs [B, ...]; if given, the recurrence of foreign layers is tested on them.

    Returns:
        The attacks that apply, and the names of those left out.
    """
    swaps, counts = bool(spiking_layers(model)), answers_in_spikes(model)
    rules, noisy = prescribable(model, example), has_mean_field(model)
    kept = {
        name: attack
        for name, attack in attacks.items()
        if (swaps or not _uses(attack, *_SWAPS))
        and (rules or not (_uses(attack, *_RULES) or _cuts_path(attack)))
        and (counts or not _uses(attack, MembraneReadout))
        and (noisy or not _uses(attack, MeanField))
    }
    return kept, tuple(name for name in attacks if name not in kept)


def _uses(attack: Attack, *kinds: type) -> bool:
    """Whether an attack's gradient, or a gradient inside it, is of one of the kinds."""
    return any(isinstance(each, kinds) for each in nested(getattr(attack, "gradient", None)))


def _cuts_path(attack: Attack) -> bool:
    parts = nested(getattr(attack, "gradient", None))
    return any(isinstance(each, ASSG) and not each.whole for each in parts)

"""Which attacks apply to a model: by their gradient, and by their threat set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.event_threats.base import EventThreat
from spikeguard.attacks.event_threats.counts import Counts
from spikeguard.attacks.event_threats.edits import Edits
from spikeguard.attacks.event_threats.flips import Flips
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import SwapSurrogate, nested
from spikeguard.attacks.gradients.mean_field import MeanField, has_mean_field
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout, answers_in_spikes
from spikeguard.attacks.gradients.spiking_rules import BPTR, HART, PDSG, RGA, prescribable
from spikeguard.attacks.searches.apgd import APGD
from spikeguard.attacks.searches.fab import FAB
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.attacks.searches.mifgsm import MIFGSM
from spikeguard.attacks.searches.mtpgd import MTPGD
from spikeguard.attacks.searches.pgd import RFGSM
from spikeguard.attacks.searches.sapgd import SAPGD
from spikeguard.attacks.searches.square import Square
from spikeguard.attacks.threat import peak_of
from spikeguard.encoders.input_space import InputSpace, space_of
from spikeguard.neurons.modes import spiking_layers

__all__ = ["require_threats", "suitable"]

_ON_IMAGES = (APGD, FAB, LocalClimb, MIFGSM, MTPGD, RFGSM, SAPGD, Square)

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


def require_threats(attacks: Iterable[Attack], model: nn.Module | None = None) -> None:
    """Reject attacks on images with a threat on events, and a threat that does not fit a network.

    Args:
        attacks: The attacks.
        model: The network; None checks the attacks alone.

    Raises:
        ValueError: One line that says what does not fit.
    """
    for attack in attacks:
        threat, kind = attack.threat, type(attack).__name__
        if getattr(threat, "events", False) and isinstance(attack, _ON_IMAGES):
            raise ValueError(
                f"{kind}: defined for images, got the threat {threat}; on events use the suite "
                "events, or one of the attacks fgsm, pgd, noise, greedy, spike-compatible, sda, "
                "spikefool, raw-events and retiming."
            )
        problem = None if model is None else _misfit(threat, space_of(model))
        if problem:
            raise ValueError(f"{threat}: {problem}")


def _misfit(threat: Any, space: InputSpace) -> str | None:
    """Return why adversarial inputs of a threat may be no inputs of a network; None if they are."""
    if not isinstance(threat, EventThreat):
        if space.temporal and peak_of(threat) > space.high:
            return f"peak is above the values that the network takes, {space}."
        return None
    if not (space.temporal and space.whole):
        return f"is a threat on event grids; the network takes {space}."
    if isinstance(threat, Flips | Edits) and space.high != 1:
        return f'changes zeros and ones; the network takes {space}: use "counts budget=...".'
    if isinstance(threat, Counts) and space.high != math.inf:
        return f'has no largest value; the network takes {space}: use "flips budget=...".'
    if isinstance(threat, Flips) and space.exclusive:
        return 'may put both polarities in one cell, which the network excludes: use "edits ...".'
    return None

"""Suites of attacks by name, each a dictionary ``{name: attack}``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from spikeguard.attacks.base import Attack
from spikeguard.attacks.gradients.ann_twin import ANNTwin
from spikeguard.attacks.gradients.assg import ASSG
from spikeguard.attacks.gradients.base import SwapSurrogate, unwrap
from spikeguard.attacks.gradients.membrane_readout import MembraneReadout, answers_in_spikes
from spikeguard.attacks.gradients.spiking_rules import BPTR, HART, PDSG, RGA, prescribable
from spikeguard.attacks.suite_definitions import CASCADES, SUITES, SuiteSettings
from spikeguard.attacks.threat import THREATS
from spikeguard.neurons.modes import spiking_layers

__all__ = ["CASCADES", "SUITES", "attack_by_name", "suitable", "suite"]

_SWAPS = (SwapSurrogate, ASSG)  # need a surrogate that can be replaced
_RULES = (BPTR, RGA, HART, PDSG, ANNTwin)  # need layers whose recurrence is known


def suite(
    name: str,
    *,
    eps: float,
    norm: str = "linf",
    eot: int = 1,
    widths: Sequence[float] = (0.5, 1.0, 2.0, 4.0),
    steps: int = 40,
) -> dict[str, Attack]:
    """Return a suite of attacks.

    Args:
        name: One of ``SUITES``.
        eps: Radius of the threat set.
        norm: "linf", "l2" or "l1".
        eot: Gradients averaged in every step, >= 1; more than 1 for stochastic models.
        widths: Half-widths of the attacker's triangular surrogate, in suites that sweep them.
        steps: Gradient steps of the sweep in "surrogates" and "demo".

    Raises:
        ValueError: If the name or the norm is unknown, or a number is out of range.
    """
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"suite: unknown suite {name!r}.{hint} Known: {', '.join(SUITES)}.")
    if norm not in THREATS:
        raise ValueError(f"suite: norm is one of {', '.join(THREATS)}; got {norm!r}.")
    if eot < 1:
        raise ValueError(f"suite: eot counts gradients, >= 1, got {eot}.")
    if len(set(widths)) < len(widths):
        raise ValueError(f"suite: widths must differ, got {list(widths)}.")
    return SUITES[name](SuiteSettings(THREATS[norm](eps), eot, tuple(widths), steps))


def attack_by_name(name: str, *, eps: float, norm: str = "linf", eot: int = 1) -> Attack:
    """Return one attack by its name in a suite, such as "pgd40" or "sapgd/assg".

    If several suites use the name, "papers" comes first, then "snn".

    Raises:
        ValueError: As :func:`suite`, or if no suite has an attack of this name.
    """
    known: dict[str, Attack] = {}
    for suite_name in ("papers", "snn", *SUITES):
        known = suite(suite_name, eps=eps, norm=norm, eot=eot) | known
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"attack: unknown attack {name!r}.{hint} Known: {', '.join(known)}.")
    return known[name]


def suitable(
    attacks: Mapping[str, Attack], model: nn.Module, example: Tensor | None = None
) -> tuple[dict[str, Attack], tuple[str, ...]]:
    """Drop the attacks whose gradient does not apply to a model.

    ``SwapSurrogate`` and ``ASSG`` need spiking layers, of this package or of a framework supported
    by ``foreign``. The other gradients for spiking networks need layers with a known recurrence.
    ``MembraneReadout`` needs a last layer that spikes.

    Args:
        attacks: ``{name: attack}``.
        model: The model to attack.
        example: Inputs [B, ...]; if given, the recurrence of foreign layers is tested on them.

    Returns:
        The attacks that apply, and the names of those left out.
    """
    swaps, counts = bool(spiking_layers(model)), answers_in_spikes(model)
    rules = prescribable(model, example)
    kept = {
        name: attack
        for name, attack in attacks.items()
        if (swaps or not _uses(attack, *_SWAPS))
        and (rules or not _uses(attack, *_RULES))
        and (counts or not _uses(attack, MembraneReadout))
    }
    return kept, tuple(name for name in attacks if name not in kept)


def _uses(attack: Attack, *kinds: type) -> bool:
    """Whether an attack's gradient, or the gradient inside a wrapper, is of one of the kinds."""
    return isinstance(unwrap(getattr(attack, "gradient", None)), kinds)

"""A stored attack result, read back only for what it was made with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.errors import ConfigError
from spikeguard.runs.tuned_settings import tuned_from_json
from spikeguard.storage.digests import UNVERIFIED

if TYPE_CHECKING:
    from spikeguard.attacks.base import Attack
    from spikeguard.evaluation.result import Evaluation

__all__ = ["card_of", "load_result", "require_identity"]


def card_of(stem: Path) -> Path:
    """Return the JSON file of a result, which is written last."""
    return stem.with_name(f"{stem.name}.json")


def load_result(
    stem: Path,
    attacks: Mapping[str, Attack],
    options: list[Any],
    identity: Mapping[str, str],
    announce: Callable[[str], None] | None,
) -> Evaluation:
    """Load a finished result; reject one that was made with anything else than would be used now.

    Args:
        stem: Its path without the suffix.
        attacks: The attacks that would run now.
        options: Whether as a cascade, the precision and the seed.
        identity: Weights, network and images that would be attacked now.
        announce: Called with lines of text.
    """
    from spikeguard.attacks.base import describe
    from spikeguard.attacks.tuning import adjusted, describe_tuned
    from spikeguard.evaluation.result import Evaluation
    from spikeguard.evaluation.search_record import is_of_suite_before

    found, file = Evaluation.load(stem), card_of(stem)
    require_identity(found.identity, identity, file, announce)
    card = json.loads(file.read_text(encoding="utf-8"))
    attacks = adjusted(attacks, tuned_from_json(card.get("tuned", {}), stem))
    if card.get("tuned") and announce is not None:
        announce(describe_tuned(card["tuned"]))
    settings = {name: describe(attack) for name, attack in attacks.items()}
    wanted = json.loads(json.dumps([settings, *options]))
    if [found.settings, found.cascade, found.precision, found.seed] != wanted:
        old = 'suite "snn" before it was a converging search, now "snn-cascade"'
        made = (
            f"made with the {old}"
            if is_of_suite_before(card)
            else "made with other attack settings"
        )
        raise ConfigError(f"{file} was {made}; move it away and run again.")
    return found


def require_identity(
    stored: Mapping[str, Any] | None,
    now: Mapping[str, str],
    file: Path,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Reject a result of other weights, images or network; say what cannot be verified.

    Args:
        stored: The identity in the result; None in one of an older version.
        now: The identity of what would be used now, see ``identity_of``.
        file: The result's file.
        announce: Called with a line about a result of another version of the code, or None.

    Raises:
        ConfigError: If they differ.
    """
    from spikeguard.evaluation.identity import identity_difference

    other = None if stored is None else identity_difference(stored, now)
    if other is not None:
        raise ConfigError(f"{file} is of {other}; move it away and run again.")
    if announce is None:
        return
    if stored is None:
        announce(f"{file}{UNVERIFIED}")
    elif stored.get("code") != now["code"]:
        announce(f"{file} was made by SpikeGuard {stored.get('code')}, this is {now['code']}")

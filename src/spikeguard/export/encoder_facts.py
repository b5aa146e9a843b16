"""The encoder of a network, stated in a file's metadata: NIR holds what comes after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from spikeguard.encoders import ENCODERS
from spikeguard.encoders.coding import Encoder
from spikeguard.export.refusals import ExportError
from spikeguard.models.snn import SNN

__all__ = ["encoder_of", "frame_facts", "require_encoder"]

_NAMES = {"Direct": "direct", "EventFrames": "event_frames"}  # what passes its input on unchanged
_REFUSED = {
    "Poisson": "draws spikes at random",
    "RSC": "adds noise at every step",
    "Phase": "emits bits of the pixels",
    "Quantised": "rounds pixels",
    "FrequencyEncoding": "filters the image, another one at every step",
}
_FRAMES = ("high", "whole", "exclusive")  # options of event_frames, fields of its space


def require_encoder(model: SNN) -> str:
    """Return the name of an encoder that passes its input on unchanged.

    Raises:
        ExportError: If the encoder computes something: NIR has no node for it.
    """
    kind = type(model.encoder).__name__
    if kind not in _NAMES:
        why = _REFUSED.get(kind, f"is not one of {' and '.join(_NAMES.values())}")
        raise ExportError(
            f"encoder {kind}: {why}, for which NIR has no node; train with encoder direct."
        )
    return _NAMES[kind]


def frame_facts(encoder: Encoder) -> dict[str, str | int | float]:
    """Return the values that event frames may have, as a fact; nothing for images."""
    space = getattr(encoder, "space", None)
    if space is None or not space.temporal:
        return {}
    return {"frames": json.dumps({name: getattr(space, name) for name in _FRAMES})}


def encoder_of(stated: Mapping[str, Any]) -> Encoder:
    """Build the encoder that a file states; direct where it states none.

    Raises:
        ExportError: If the encoder is unknown, or the metadata is damaged.
    """
    name = str(stated.get("encoder", "direct"))
    if name not in _NAMES.values() or name not in ENCODERS:
        raise ExportError(f"NIR: unknown encoder {name!r} in the metadata.")
    kind: Any = ENCODERS[name]
    text = stated.get("frames", "{}")
    try:
        found = kind(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise ExportError(f"NIR: damaged metadata 'frames': {text!r}.") from error
    assert isinstance(found, nn.Module)
    encoder: Encoder = found  # type: ignore[assignment]
    return encoder

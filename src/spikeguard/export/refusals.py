"""What an export rejects and why: networks, encoders and packages that a file cannot hold."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from spikeguard.models.snn import SNN

__all__ = ["ExportError", "require_encoder", "require_plain", "required"]

_ENCODERS = {  # encoder -> why NIR cannot hold it
    "Poisson": "draws spikes at random",
    "Phase": "emits bits of the pixels",
    "Quantised": "rounds pixels",
    "FrequencyEncoding": "filters the image, another one at every step",
}
NAMES = {"Direct": "direct", "EventFrames": "event_frames"}  # encoders that leave the input as is


class ExportError(ValueError):
    """A network or file cannot be exported or imported; the message is one line."""


def required(package: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        ExportError: If it is not installed; the message names the extra that installs it.
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        raise ExportError(
            f"{extra} needs the package {error.name}; run pip install 'spikeguard[{extra}]'."
        ) from error


def require_plain(model: nn.Module) -> SNN:
    """Return the model if it is an :class:`SNN`, whose stages can be read.

    Raises:
        ExportError: If it is another class.
    """
    if type(model) is not SNN:
        raise ExportError(
            f"export: the network is of class {type(model).__name__}; only networks of "
            "spikeguard.models can be exported."
        )
    return model


def require_encoder(model: SNN) -> str:
    """Return the name of an encoder that passes its input on unchanged.

    Raises:
        ExportError: If the encoder computes something: NIR has no node for it.
    """
    kind = type(model.encoder).__name__
    if kind not in NAMES:
        why = _ENCODERS.get(kind, "is not one of direct and event_frames")
        raise ExportError(
            f"encoder {kind}: {why}, for which NIR has no node; train with encoder direct."
        )
    return NAMES[kind]

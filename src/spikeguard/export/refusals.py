"""The error of exports, and what every export needs: a readable network, an optional package."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from torch import nn

from spikeguard.models.snn import SNN

__all__ = ["ExportError", "require_plain", "required"]


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

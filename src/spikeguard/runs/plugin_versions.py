"""Versions of the plugins a run was trained with, compared with those installed now."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path

from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins
from spikeguard.storage.run_folder import ENVIRONMENT

__all__ = ["PluginVersionWarning", "require_same_versions", "warn_of_other_versions"]


class PluginVersionWarning(UserWarning):
    """A run was trained with another version of a plugin than the one installed."""


def require_same_versions(path: Path, plugins: Plugins) -> None:
    """Raise ConfigError if a training was started with another version of a plugin.

    A resumed training must give the same bits as an uninterrupted one.
    """
    for name, was, now in _changes(path, plugins):
        raise ConfigError(
            f"{path} was started with {name} {was}, installed is {now}; install {name} {was}, or "
            "choose another folder with --out."
        )


def warn_of_other_versions(path: Path, plugins: Plugins) -> None:
    """Warn if a run was trained with another version of a plugin."""
    for name, was, now in _changes(path, plugins):
        message = f"{path} was trained with {name} {was}, installed is {now}."
        warnings.warn(message, PluginVersionWarning, stacklevel=3)


def _changes(path: Path, plugins: Plugins) -> Iterator[tuple[str, str, str]]:
    """Yield name, recorded version and present version of every plugin that differs."""
    file = path / ENVIRONMENT
    if not file.is_file():
        return
    try:
        recorded = dict(json.loads(file.read_text(encoding="utf-8")).get("plugins", {}))
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: damaged; the versions of plugins are unknown.") from error
    now = plugins.versions() if recorded else {}
    for name, was in recorded.items():
        if name in now and now[name] != was:
            yield name, was or "without a version", now[name] or "without a version"

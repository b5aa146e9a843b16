"""Suites that are lists of attack lines, read from ``suites.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Protocol

import yaml

from spikeguard.attacks.attack_lines import parse_line
from spikeguard.attacks.base import Attack
from spikeguard.attacks.threat import Threat

__all__ = ["LISTED", "ListedSuite"]


class _Settings(Protocol):
    @property
    def threat(self) -> Threat: ...
    @property
    def eot(self) -> int: ...


@dataclass(frozen=True)
class ListedSuite:
    """A suite that is a list of attack lines; calling it builds the attacks.

    Attributes:
        about: The suite in one line.
        attacks: Attack lines by name, without ``eot``.
        source: Where the settings are from.
        eot: Gradients averaged in every step against a stochastic model; None is the default.
    """

    about: str
    attacks: Mapping[str, str]
    source: str = ""
    eot: int | None = None

    def __call__(self, plan: _Settings) -> dict[str, Attack]:
        """Return the attacks by name."""
        lines = {name: parse_line(line) for name, line in self.attacks.items()}
        return {name: line.build(plan.threat, plan.eot) for name, line in lines.items()}


def _read() -> dict[str, ListedSuite]:
    text = (files("spikeguard.attacks") / "suites.yaml").read_text(encoding="utf-8")
    raw: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)
    return {name: ListedSuite(**entry) for name, entry in raw.items()}


LISTED = _read()

"""Defences: what training minimises besides, or instead of, the loss on clean images."""

from __future__ import annotations

from spikeguard.defences.adversarial import AT
from spikeguard.defences.base import Objective, Outcome, Pass, Piece, Step, Vanilla
from spikeguard.defences.noise import GaussianNoise
from spikeguard.defences.tgo import TGO

__all__ = [
    "AT",
    "DEFENCES",
    "GaussianNoise",
    "Objective",
    "Outcome",
    "Pass",
    "Piece",
    "Step",
    "TGO",
    "Vanilla",
]

DEFENCES: dict[str, type[Piece]] = {
    "vanilla": Vanilla,
    "at": AT,
    "gaussian": GaussianNoise,
    "tgo": TGO,
}

"""Encoders: modules that convert images or event frames [B, ...] to currents [T, B, ...]."""

from __future__ import annotations

from torch import nn

from spikeguard.encoders.coding import Direct, Encoder, Phase, Poisson, Quantised
from spikeguard.encoders.event_frames import EventFrames
from spikeguard.encoders.frequency import FrequencyEncoding
from spikeguard.encoders.input_space import PIXELS, InputSpace, space_of
from spikeguard.encoders.rsc import RSC

__all__ = [
    "Direct",
    "ENCODERS",
    "Encoder",
    "EventFrames",
    "FrequencyEncoding",
    "InputSpace",
    "PIXELS",
    "Phase",
    "Poisson",
    "Quantised",
    "RSC",
    "space_of",
]

ENCODERS: dict[str, type[nn.Module]] = {
    "direct": Direct,
    "poisson": Poisson,
    "phase": Phase,
    "quantised": Quantised,
    "frequency": FrequencyEncoding,
    "event_frames": EventFrames,
    "rsc": RSC,
}

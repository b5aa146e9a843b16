"""Encoders: modules that convert an image [B, ...] to input currents [T, B, ...]."""

from __future__ import annotations

from torch import nn

from spikeguard.encoders.coding import Direct, Encoder, Phase, Poisson, Quantised
from spikeguard.encoders.frequency import FrequencyEncoding

__all__ = ["Direct", "ENCODERS", "Encoder", "FrequencyEncoding", "Phase", "Poisson", "Quantised"]

ENCODERS: dict[str, type[nn.Module]] = {
    "direct": Direct,
    "poisson": Poisson,
    "phase": Phase,
    "quantised": Quantised,
    "frequency": FrequencyEncoding,
}

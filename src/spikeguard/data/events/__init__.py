"""Recordings of event cameras: read from disk, checked, and summed into frames [T, C, H, W]."""

from __future__ import annotations

from spikeguard.data.events.event_set import EventSet, Place, SkippedRecordingWarning
from spikeguard.data.events.framing import Framing
from spikeguard.data.events.own_events import from_recordings
from spikeguard.data.events.recording import BadRecording, Recording

__all__ = [
    "BadRecording",
    "EventSet",
    "Framing",
    "Place",
    "Recording",
    "SkippedRecordingWarning",
    "from_recordings",
]

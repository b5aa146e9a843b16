"""Photographs in files of any size: decoded, cut to one size and read ahead batch by batch."""

from __future__ import annotations

from spikeguard.data.photos.decoding import BadImage
from spikeguard.data.photos.photo_set import PhotoSet

__all__ = ["BadImage", "PhotoSet"]

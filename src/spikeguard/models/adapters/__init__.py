"""foreign(): a network of SpikingJelly, snnTorch, Norse or plain torch as a classifier."""

from __future__ import annotations

from spikeguard.models.adapters.classifier import Foreign, ForeignReadout, foreign
from spikeguard.models.adapters.foreign_neuron import ForeignError

__all__ = ["Foreign", "ForeignError", "ForeignReadout", "foreign"]

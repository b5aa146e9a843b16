"""Files for other software and for chips: NIR and ONNX, written, verified and read back."""

from __future__ import annotations

from spikeguard.export.exporter import Exported, export_nir
from spikeguard.export.importer import from_nir, load_nir
from spikeguard.export.interpreter import Replay, replay
from spikeguard.export.nir_file import read_nir
from spikeguard.export.onnx_file import ExportedOnnx, export_onnx
from spikeguard.export.pooling_layers import without_pooling
from spikeguard.export.refusals import ExportError

__all__ = [
    "ExportError",
    "Exported",
    "ExportedOnnx",
    "Replay",
    "export_nir",
    "export_onnx",
    "from_nir",
    "load_nir",
    "read_nir",
    "replay",
    "without_pooling",
]

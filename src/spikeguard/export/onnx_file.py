"""ONNX files: the whole classifier, images in and logits out, with its T steps unrolled."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spikeguard.export.exporter import Noise, quiet
from spikeguard.export.refusals import ExportError, required
from spikeguard.export.verification import TOLERANCE
from spikeguard.kernels.selection import unfused, use_kernel
from spikeguard.models.snn import SNN
from spikeguard.storage.atomic_files import atomic

__all__ = ["ExportedOnnx", "export_onnx"]


@dataclass(frozen=True, eq=False)
class ExportedOnnx:
    """A file that was written, and how onnxruntime compares with the network.

    Attributes:
        path: The file.
        n: Number of inputs.
        logits: Largest difference of a logit.
        predictions: Classes that both predict [n].
    """

    path: Path
    n: int
    logits: float
    predictions: Tensor

    def __str__(self) -> str:
        return f"all {self.n} predictions equal in onnxruntime; logits within {self.logits:.1e}"


def export_onnx(
    model: SNN,
    path: str | Path,
    x: Tensor,
    *,
    noise: Noise = "on",
    stated: Mapping[str, str] | None = None,
) -> ExportedOnnx:
    """Write a network to an ONNX file and verify the file with onnxruntime.

    The file has no state: an input "x" [B, *in_shape] with any B, an output "logits" [B, K]. Spikes
    are step functions, so that no gradient can be computed from it.

    Args:
        model: The network.
        path: The file to write or replace.
        x: Inputs on which the file is verified [n, *in_shape], n >= 2.
        noise: "off" exports a network with noisy neurons without its noise; "on" rejects it.
        stated: Facts for the metadata of the file, such as the checkpoint of the weights.

    Raises:
        ExportError: If a package is missing, the network draws random numbers, or onnxruntime
            predicts another class or other logits. No file is written then.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        required(package, "onnx")
    network = quiet(model, noise)
    if network.stochastic:
        random = next(
            m for m in network.modules() if getattr(m, "stochastic", False) and m is not network
        )
        raise ExportError(
            f"export: {type(random).__name__} draws random numbers, an ONNX file has none; "
            "--noise off exports a network with noisy neurons without its noise."
        )
    path = Path(path)
    with atomic(path) as temporary:
        temporary.write_bytes(_serialised(network, x[:2], stated or {}))
        with torch.no_grad(), unfused():
            wanted = network(x)
        found = _run(temporary, x)
        gap = float((found - wanted).abs().max())
        changed = int((found.argmax(1) != wanted.argmax(1)).sum())
        if changed or gap > TOLERANCE * max(1.0, float(wanted.abs().max())):
            raise ExportError(
                f"verification: onnxruntime predicts another class for {changed} of {len(x)} "
                f"inputs, logits differ by up to {gap:.2g}; nothing was written."
            )
    return ExportedOnnx(path, len(x), gap, found.argmax(1))


def _serialised(network: nn.Module, x: Tensor, stated: Mapping[str, str]) -> bytes:
    batch = torch.export.Dim("B", min=1)
    told = io.StringIO()  # the exporter prints its progress
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            torch.no_grad(),
            use_kernel("reference"),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(told),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network,
                (x,),
                dynamo=True,
                input_names=["x"],
                output_names=["logits"],
                dynamic_shapes=({0: batch},),
                verbose=False,
            )
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        first = str(cause).strip().partition("\n")[0]
        raise ExportError(f"export: torch.onnx cannot export this network: {first}") from error
    finally:
        logger.setLevel(level)
    assert program is not None
    written = program.model_proto
    for name, value in stated.items():
        written.metadata_props.add(key=name, value=value)
    data: bytes = written.SerializeToString()
    return data


def _run(path: Path, x: Tensor) -> Tensor:
    session = required("onnxruntime", "onnx").InferenceSession(
        str(path), providers=["CPUExecutionProvider"]
    )
    (logits,) = session.run(["logits"], {"x": np.ascontiguousarray(x.numpy())})
    return torch.from_numpy(logits)

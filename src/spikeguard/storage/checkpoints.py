"""Checkpoints: folders of safetensors and JSON files, verified on reading, without pickle.

A checkpoint folder holds ``model.safetensors`` (weights and statistics), ``state.safetensors`` (the
optimiser's tensors) and ``state.json`` (everything else, the SHA-256 of the other two files, and a
checksum of itself; checkpoints of older versions lack the checksum).
The folder is replaced atomically, so a killed writer always leaves a complete checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from spikeguard.storage import atomic_folders as folders
from spikeguard.storage.atomic_folders import candidate_paths, replace_folder, write_synced
from spikeguard.storage.digests import CHECKSUM, is_sealed, sealed
from spikeguard.storage.run_folder import BEST

__all__ = [
    "INFO",
    "Checkpoint",
    "CheckpointError",
    "load",
    "load_model",
    "read_weights",
    "recover",
    "restore_model",
    "save",
]

MODEL, STATE, INFO = "model.safetensors", "state.safetensors", "state.json"
FORMAT = 1
_NAMED = 10  # names in a message


class CheckpointError(ValueError):
    """The checkpoint is missing, damaged, of another model, or not in the safetensors format."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint folder.

    Attributes:
        model: The model's state dict, on the CPU.
        state: The tensors passed to :func:`save` as ``state``, on the CPU.
        info: The mapping passed to :func:`save` as ``info``.
    """

    model: dict[str, Tensor]
    state: dict[str, Tensor]
    info: dict[str, Any]


def save(
    folder: str | Path,
    model: nn.Module,
    *,
    state: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint; the previous one is replaced only once the new one is complete.

    Args:
        folder: The checkpoint folder, created or replaced.
        model: Model whose state dict is saved.
        state: Further tensors.
        info: Any JSON values, except NaN and infinity.

    Raises:
        OSError: If a write fails, for example on a full disk; the old checkpoint is kept.
    """
    folder = Path(folder)
    files = {MODEL: _serialised(model.state_dict()), STATE: _serialised(state or {})}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    header = sealed({"format": FORMAT, "sha256": digests, "info": dict(info or {})})
    files[INFO] = json.dumps(header, allow_nan=False, indent=1).encode()
    try:
        with replace_folder(folder, _complete) as fresh:
            for name, data in files.items():
                write_synced(fresh / name, data)
    except OSError as error:
        previous = "the previous one is kept" if folder.exists() else "there is none yet"
        reason = f"{error.strerror or error}; the checkpoint was not written, {previous}"
        raise OSError(error.errno, reason, str(folder)) from error


def load(folder: str | Path) -> Checkpoint | None:
    """Read and verify a checkpoint; return None if there is none.

    Raises:
        CheckpointError: If the checkpoint is damaged.
    """
    folder, *others = candidate_paths(Path(folder))
    if folder.exists():
        return _read(folder)
    return next((_read(path) for path in others if _complete(path)), None)


def recover(folder: str | Path) -> None:
    """Complete or undo the write of a killed process and remove its leftovers."""
    folders.recover(Path(folder), _complete)


def load_model(path: str | Path, model: nn.Module) -> None:
    """Load weights into a model. Names, shapes and types must match; otherwise nothing is loaded.

    Args:
        path: A checkpoint folder, or a ``.safetensors`` file.
        model: A model built like the one that was saved.

    Raises:
        CheckpointError: If the file is missing, truncated, a pickle, or of another model; the model
            is unchanged.
    """
    restore_model(model, read_weights(path), where=str(path))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the weights in a checkpoint folder or a ``.safetensors`` file.

    Raises:
        CheckpointError: If the file is missing, truncated or a pickle.
    """
    path = Path(path)
    best = path / BEST
    if best.exists():
        raise CheckpointError(f"{path}: is a run folder; its checkpoint is {best}.")
    if path.is_file():
        return _parse(path, path.read_bytes())
    found = load(path)
    if found is None:
        raise CheckpointError(f"{path}: there is no checkpoint.")
    return found.model


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into a model after checking that names, shapes and types match.

    Args:
        model: The model to load into.
        tensors: A complete state dict.
        where: Origin of the tensors, for the error message.

    Raises:
        CheckpointError: If the tensors belong to another model; the model is unchanged.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = sorted(name for name in tensors if name not in own)
    different = [
        f"{name} is {_kind(tensors[name])} where the model has {_kind(own[name])}"
        for name in own
        if name in tensors and _kind(tensors[name]) != _kind(own[name])
    ]
    problems = [
        f"{what}{_first(names)}"
        for what, names in (("it lacks ", missing), ("it adds ", unexpected), ("", different))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{where}: belongs to another model: {'; '.join(problems)}. Build the model as it was "
            "when it was trained."
        )
    model.load_state_dict(dict(tensors), strict=True)


def _read(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint folder."""
    data: dict[str, bytes] = {}
    for name in (MODEL, STATE, INFO):
        try:
            data[name] = (folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            present = _first(sorted(p.name for p in folder.glob("*"))) or "nothing"
            raise CheckpointError(
                f"{folder}: is no checkpoint: {name} is missing, it holds {present}. SpikeGuard "
                "loads only its own checkpoints and .safetensors files."
            ) from None
    tensors = {name: _parse(folder / name, data[name]) for name in (MODEL, STATE)}
    try:
        header = json.loads(data[INFO])
        version, digests, info = header["format"], dict(header["sha256"]), dict(header["info"])
        is_sealed(header)
        unknown = header.keys() - {"format", "sha256", "info", CHECKSUM}
        if unknown:
            raise ValueError(f"unknown key {min(unknown)!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{folder / INFO}: is truncated or damaged ({error}).") from error
    if version != FORMAT:
        raise CheckpointError(f"{folder}: is of format {version}; this SpikeGuard reads {FORMAT}.")
    for name in tensors:
        if hashlib.sha256(data[name]).hexdigest() != digests.get(name):
            raise CheckpointError(
                f"{folder / name}: is damaged: its SHA-256 is not the one in {INFO}."
            )
    return Checkpoint(tensors[MODEL], tensors[STATE], info)


def _complete(folder: Path) -> bool:
    """Return whether a folder holds a complete checkpoint."""
    try:
        _read(folder)
    except CheckpointError:
        return False
    return True


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a safetensors file.

    The tensors are copied, because the format rejects tensors that share memory.
    """
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    return safetensors.torch.save(copies, metadata={"format": "pt"})


def _parse(path: Path, data: bytes) -> dict[str, Tensor]:
    """Parse safetensors data without unpickling; on failure the error names the likely format."""
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if data[:1] == b"\x80" or data[:2] == b"PK":
            raise CheckpointError(
                f"{path}: is a pickle or torch archive; SpikeGuard loads only safetensors; convert "
                "with safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)."
            ) from None
        said = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{path}: is truncated, damaged or no safetensors file ({said})."
        ) from error


def _kind(tensor: Tensor) -> str:
    """Return type and shape, and how the tensor is stored if it is not a plain one."""
    if tensor.is_nested:
        return "a nested tensor"
    stored = "" if tensor.layout == torch.strided else f" {str(tensor.layout)[6:]}"
    stored += " without values (meta)" if tensor.is_meta else ""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}{stored}"


def _first(names: list[str]) -> str:
    """Return the first names and how many more there are."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

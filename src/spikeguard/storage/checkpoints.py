"""Checkpoints as data: safetensors and JSON, verified when they are read, never a pickle.

A checkpoint is a folder with ``model.safetensors`` (weights and statistics), ``state.safetensors``
(the optimiser's tensors) and ``state.json`` (all else, and the SHA-256 of the other two). The
folder is replaced whole: whatever kills a writer, a complete checkpoint can be read afterwards.
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
from torch import Tensor, nn

from spikeguard.storage import atomic_folders as folders
from spikeguard.storage.atomic_folders import candidate_paths, replace_folder, write_synced
from spikeguard.storage.run_folder import BEST

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "load",
    "load_model",
    "recover",
    "restore_model",
    "save",
]

MODEL, STATE, INFO = "model.safetensors", "state.safetensors", "state.json"
FORMAT = 1


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, of another model, or no safetensors at all."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes:
        model: The model's state dict, on the CPU.
        state: The tensors handed to :func:`save` as ``state``, on the CPU.
        info: What was handed to :func:`save` as ``info``.
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
    """Write a checkpoint; until it is complete, the one that was there stands.

    Args:
        folder: The checkpoint folder, created or replaced.
        model: Its state dict is stored.
        state: Further tensors.
        info: Anything JSON can hold, NaN and infinity excepted.

    Raises:
        OSError: If it cannot be written, for example on a full disk; the old checkpoint stands.
    """
    folder = Path(folder)
    files = {MODEL: _serialised(model.state_dict()), STATE: _serialised(state or {})}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    card = {"format": FORMAT, "sha256": digests, "info": dict(info or {})}
    files[INFO] = json.dumps(card, allow_nan=False, indent=1).encode()
    try:
        with replace_folder(folder, _complete) as fresh:
            for name, data in files.items():
                write_synced(fresh / name, data)
    except OSError as error:
        stands = "the one before it stands" if folder.exists() else "there is none yet"
        reason = f"{error.strerror or error}; the checkpoint was not written, {stands}"
        raise OSError(error.errno, reason, str(folder)) from error


def load(folder: str | Path) -> Checkpoint | None:
    """Read a checkpoint and verify it; None if there is none.

    Raises:
        CheckpointError: If it is damaged.
    """
    folder, *others = candidate_paths(Path(folder))
    if folder.exists():
        return _read(folder)
    return next((_read(place) for place in others if _complete(place)), None)


def recover(folder: str | Path) -> None:
    """Finish or undo what a killed writer began, and remove what it left."""
    folders.recover(Path(folder), _complete)


def load_model(path: str | Path, model: nn.Module) -> None:
    """Load weights into a model, strictly: same names, same shapes, same types, all or nothing.

    Args:
        path: A checkpoint folder, or a ``.safetensors`` file.
        model: A model built like the one that was saved.

    Raises:
        CheckpointError: If the file is missing, truncated, a pickle, or of another model; the model
            is left as it was.
    """
    path = Path(path)
    best = path / BEST
    if best.exists():
        raise CheckpointError(f"{path}: is a run folder; its checkpoint is {best}.")
    if path.is_file():
        tensors = _parse(path, path.read_bytes())
    else:
        found = load(path)
        if found is None:
            raise CheckpointError(f"{path}: there is no checkpoint.")
        tensors = found.model
    restore_model(model, tensors, where=str(path))


def restore_model(model: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Copy tensors into a model after checking that they are exactly its own.

    Args:
        model: Takes the tensors.
        tensors: A whole state dict.
        where: Where they are from, for the error message.

    Raises:
        CheckpointError: If they are those of another model; the model is left as it was.
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
    """Read and verify a folder."""
    data: dict[str, bytes] = {}
    for name in (MODEL, STATE, INFO):
        try:
            data[name] = (folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            held = ", ".join(sorted(p.name for p in folder.glob("*"))) or "nothing"
            raise CheckpointError(
                f"{folder}: is no checkpoint: {name} is missing, it holds {held}. SpikeGuard loads "
                "only its own checkpoints and .safetensors files."
            ) from None
    tensors = {name: _parse(folder / name, data[name]) for name in (MODEL, STATE)}
    try:
        card = json.loads(data[INFO])
        version, digests, info = card["format"], dict(card["sha256"]), dict(card["info"])
    except (ValueError, KeyError, TypeError) as error:
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
    """Whether a folder holds a whole checkpoint."""
    try:
        _read(folder)
    except CheckpointError:
        return False
    return True


def _serialised(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the safetensors file; copies, because the format refuses names that share memory."""
    copies = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    return safetensors.torch.save(copies, metadata={"format": "pt"})


def _parse(path: Path, data: bytes) -> dict[str, Tensor]:
    """Parse safetensors; where it is none, say what it is. Nothing is ever unpickled."""
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, KeyError) as error:
        if data[:1] == b"\x80" or data[:2] == b"PK":
            raise CheckpointError(
                f"{path}: is a pickle or torch archive; SpikeGuard loads only safetensors; convert "
                "with safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)."
            ) from None
        raise CheckpointError(
            f"{path}: is truncated, damaged or no safetensors file ({error})."
        ) from error


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _first(names: list[str]) -> str:
    """Return the first three names and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more

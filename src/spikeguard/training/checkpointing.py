"""The folder of a run: its checkpoints, its metrics, and whether it is still the same run."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.data.images import ImageSet, Splits
from spikeguard.defences.objective import Objective
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.storage.atomic_files import write_text
from spikeguard.storage.run_folder import CHECKPOINTS, ENVIRONMENT, METRICS, RECIPE
from spikeguard.training.learner import Learner
from spikeguard.training.options import TrainOptions
from spikeguard.training.state import TrainState

__all__ = [
    "Checkpointer",
    "difference",
    "identity",
    "require_new_folder",
    "optimizer_state",
    "restore_optimizer",
]

WRITTEN_BEFORE = frozenset({RECIPE, ENVIRONMENT})


@dataclass(frozen=True)
class Checkpointer:
    """Where a run keeps its checkpoints and metrics.

    Args:
        path: The folder.
        identity: What :func:`identity` says of the run; a run goes on only as itself.
    """

    path: Path
    identity: dict[str, Any]

    def save(self, name: str, learner: Learner, at: TrainState) -> None:
        """Replace the checkpoint ``name``, "last" or "best", by the present state."""
        tensors, groups = optimizer_state(learner.optimizer, learner.model)
        info = {
            "position": asdict(at),
            "optimizer": groups,
            "scaler": learner.engine.state(),
            "run": self.identity,
            "resume": "call train() with the same arguments and resume=True, or add --resume",
        }
        checkpoint.save(self._checkpoint(name), learner.model, state=tensors, info=info)

    def restore(self, learner: Learner) -> TrainState:
        """Load the last checkpoint and bring the metrics to its state.

        Returns:
            Where the run stood; a new position if it has no checkpoint yet.

        Raises:
            ValueError: If the checkpoint is of another run; the message names a difference.
        """
        for leftover in self.path.glob(".*.tmp"):  # what a killed writer could not remove
            leftover.unlink()
        for name in ("best", "last"):
            checkpoint.recover(self._checkpoint(name))
        found = checkpoint.load(self._checkpoint("last"))
        if found is None:
            return TrainState()
        changed = difference(found.info["run"], self.identity)
        if changed:
            raise ValueError(
                f"{self.path}: cannot resume, {changed}; use what the run was started with, or "
                "choose another folder."
            )
        checkpoint.restore_model(learner.model, found.model, where=str(self._checkpoint("last")))
        restore_optimizer(learner.optimizer, learner.model, found.state, found.info["optimizer"])
        learner.engine.load_state(found.info["scaler"])
        at = TrainState(**found.info["position"])
        self.write_metrics(at)
        return at

    def write_metrics(self, at: TrainState) -> None:
        """Write a line for each finished epoch: the whole file, so that none is lost or doubled."""
        lines = [json.dumps(line, allow_nan=False) + "\n" for line in at.history]
        write_text(self.path / METRICS, "".join(lines))

    def checkpoint_status(self) -> str:
        """Say what is on the disk."""
        last = self._checkpoint("last")
        return f"{last} stands" if last.exists() else "no checkpoint was written yet"

    def _checkpoint(self, name: str) -> Path:
        return self.path / CHECKPOINTS / name


def require_new_folder(out: str | Path) -> None:
    """Refuse to start a run where one lies; a recipe and an environment record may be there.

    Raises:
        ValueError: If ``out`` is a file, or a folder that holds anything else.
    """
    out = Path(out)
    if out.is_file():
        raise ValueError(f"{out} is a file; choose a folder.")
    if out.is_dir() and any(entry.name not in WRITTEN_BEFORE for entry in out.iterdir()):
        raise ValueError(
            f"{out} exists; resume it with resume=True (--resume) or choose another folder."
        )


def identity(
    model: nn.Module,
    data: Splits,
    objective: Objective,
    options: TrainOptions,
    recipe: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return what makes a run this run, as JSON: equal for the same run, whenever it is asked."""
    shown = re.sub(r" at 0x[0-9a-f]+", "", str(model)).splitlines()
    whole = {
        "recipe": None if recipe is None else dict(recipe),
        "options": asdict(options),
        "objective": repr(objective),
        "data": {
            "train": _fingerprint(data.train),
            "val": _fingerprint(data.val),
            "augment": repr(data.augment),
        },
        "model": {
            "T": getattr(model, "T", None),
            "parameters": sum(p.numel() for p in model.parameters()),
            "layers": [line.strip() for line in shown],
        },
    }
    return json.loads(json.dumps(whole, default=str))  # type: ignore[no-any-return]


def difference(saved: Any, now: Any) -> str | None:
    """Name the first difference of two JSON values, or None."""
    return next(differences(saved, now), None)


def differences(saved: Any, now: Any, where: str = "") -> Iterator[str]:
    """Name the differences of two JSON values, like "options.epochs was 10 and is now 20"."""
    if saved == now:
        return
    if isinstance(saved, dict) and isinstance(now, dict):
        names = [*saved, *(name for name in now if name not in saved)]
        pairs = [(f".{name}", saved.get(name), now.get(name)) for name in names]
    elif isinstance(saved, list) and isinstance(now, list) and len(saved) == len(now):
        pairs = [(f"[{number}]", *pair) for number, pair in enumerate(zip(saved, now, strict=True))]
    else:
        old, new = (value if isinstance(value, str) else repr(value) for value in (saved, now))
        yield f"{where.removeprefix('.')} was {old} and is now {new}"
        return
    for name, before, after in pairs:
        yield from differences(before, after, where + name)


def _fingerprint(images: ImageSet) -> dict[str, Any]:
    """Name, size and a digest of pixels and labels, their types and shapes."""
    digest = hashlib.blake2b(digest_size=16)
    for tensor in (images.images, images.labels):
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    return {"name": images.name, "images": len(images), "digest": digest.hexdigest()}


def optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split the state of an optimiser over a model's parameters into tensors and plain settings.

    Returns:
        Tensors named "parameter/slot", and the settings of each parameter group.
    """
    names = _names(optimizer, model)
    whole = optimizer.state_dict()
    tensors = {
        f"{names[number]}/{slot}": value
        for number, slots in whole["state"].items()
        for slot, value in slots.items()
        if value is not None  # SGD without momentum keeps an empty slot
    }
    groups = [{k: v for k, v in group.items() if k != "params"} for group in whole["param_groups"]]
    return tensors, groups


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Undo :func:`optimizer_state` into a fresh optimiser over the same parameters."""
    number = {name: i for i, name in enumerate(_names(optimizer, model))}
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(number[name], {})[slot] = value
    whole = optimizer.state_dict()
    whole["state"] = slots
    for own, saved in zip(whole["param_groups"], groups, strict=True):
        own.update(saved)
    optimizer.load_state_dict(whole)


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Return the parameters' names in the order in which the optimiser numbers them."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]

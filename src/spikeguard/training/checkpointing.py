"""Checkpoints and metrics of a training run, and the check that a resumed run is the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeguard.data.images import ImageSet, Splits
from spikeguard.defences.objective import Objective
from spikeguard.storage import checkpoints as checkpoint
from spikeguard.storage.atomic_files import write_text
from spikeguard.storage.digests import without_addresses
from spikeguard.storage.folder_lock import LOCK
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

WRITTEN_BEFORE = frozenset({RECIPE, ENVIRONMENT, LOCK})


@dataclass(frozen=True)
class Checkpointer:
    """Save and restore the checkpoints and metrics in a run folder.

    Args:
        path: The run folder.
        identity: Result of :func:`identity`; a checkpoint with another identity is rejected.
    """

    path: Path
    identity: dict[str, Any]

    def save(self, name: str, learner: Learner, state: TrainState) -> None:
        """Replace the checkpoint ``name``, "last" or "best", with the current state."""
        tensors, groups = optimizer_state(learner.optimizer, learner.model)
        info = {
            "position": asdict(state),
            "optimizer": groups,
            "scaler": learner.engine.state(),
            "run": self.identity,
            "resume": "call train() with the same arguments and resume=True, or add --resume",
        }
        if learner.average is not None:
            own, info["average"] = learner.average.state(learner.model)
            tensors |= own
        with learner.averaged():
            checkpoint.save(self._checkpoint(name), learner.model, state=tensors, info=info)

    def restore(self, learner: Learner, steps: int) -> TrainState:
        """Load the last checkpoint and rewrite the metrics file to match it.

        Args:
            learner: The model and the optimiser to restore.
            steps: Optimiser steps of an epoch.

        Raises:
            CheckpointError: If the checkpoint is damaged; the message names the field.
            ValueError: If the checkpoint is of another run; the message names a difference.

        Returns:
            The saved state; a new one if there is no checkpoint yet.
        """
        for leftover in self.path.glob(".*.tmp"):  # temporary files of a killed writer
            leftover.unlink()
        for name in ("best", "last"):
            checkpoint.recover(self._checkpoint(name))
        found = checkpoint.load(self._checkpoint("last"))
        if found is None:
            return TrainState()
        file = self._checkpoint("last") / checkpoint.INFO
        with _fields_of(file, "run"):
            saved = dict(found.info["run"])
            revised = _revised(saved, self.identity)
            changed = difference(saved, _known_before(saved, self.identity))
        if revised:
            raise ValueError(
                f"{self.path}: cannot resume, an earlier version began this run, and {revised}; "
                "train it again in another folder."
            )
        if changed:
            raise ValueError(
                f"{self.path}: cannot resume, {changed}; use the settings of the saved run, or "
                "choose another folder."
            )
        with _fields_of(file, "position"):
            epochs = self.identity["options"]["epochs"]
            state = TrainState.from_json(found.info["position"], epochs, steps)
        place, tensors = str(self._checkpoint("last")), found.state
        checkpoint.restore_model(learner.model, found.model, where=place)
        if learner.average is not None:
            with _fields_of(file, "average"):
                saved = found.info["average"]
                own, tensors = learner.average.load_state(learner.model, tensors, saved)
            checkpoint.restore_model(learner.model, own, where=place)
        with _fields_of(file, "optimizer"):
            groups = found.info["optimizer"]
            restore_optimizer(learner.optimizer, learner.model, tensors, groups)
        with _fields_of(file, "scaler"):
            learner.engine.load_state(found.info["scaler"])
        self.write_metrics(state)
        return state

    def restore_all(self, learner: Learner, steps: int) -> TrainState:
        """Restore as :meth:`restore` does, on every rank; rank 0 alone reads and writes files."""
        world = learner.engine.world
        state = TrainState()
        with world.together():
            if world.is_first:
                state = self.restore(learner, steps)
        if world.size == 1:
            return state
        tensors, groups = optimizer_state(learner.optimizer, learner.model)
        mean = None if learner.average is None else learner.average.values()
        sent = (state, learner.model.state_dict(), tensors, groups, learner.engine.state(), mean)
        state, weights, tensors, groups, scaler, mean = world.of_first(sent)
        if not world.is_first:
            if learner.average is not None and mean is not None:
                learner.average.set_values(*mean)
            learner.model.load_state_dict(weights)
            restore_optimizer(learner.optimizer, learner.model, tensors, groups)
            learner.engine.load_state(scaler)
        return state

    def write_metrics(self, state: TrainState) -> None:
        """Write one line per finished epoch.

        The whole file is rewritten, so that no line is lost or repeated after a resume.
        """
        lines = [json.dumps(line, allow_nan=False) + "\n" for line in state.history]
        write_text(self.path / METRICS, "".join(lines))

    def checkpoint_status(self) -> str:
        """Return a clause for error messages: which checkpoint is on disk, if any."""
        last = self._checkpoint("last")
        return f"{last} is kept" if last.exists() else "no checkpoint was written yet"

    def _checkpoint(self, name: str) -> Path:
        return self.path / CHECKPOINTS / name


@contextmanager
def _fields_of(file: Path, section: str) -> Iterator[None]:
    """Turn an error about a section of a checkpoint into one line."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        problem = str(error) if section in str(error) else f"{section}: {error!r}"
        raise checkpoint.CheckpointError(
            f"{file}: is damaged: {problem}; restore the file, or train again in another folder."
        ) from error


def require_new_folder(out: str | Path) -> None:
    """Reject a run folder that is in use; it may hold only a recipe and an environment record.

    Raises:
        ValueError: If ``out`` is a file, or a folder with other content.
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
    """Return the identity of a run as JSON values: recipe, options, objective, data and model.

    Two calls with the same arguments return equal values, also in different processes.
    """
    layers = without_addresses(str(model)).splitlines()
    content = {
        "recipe": None if recipe is None else dict(recipe),
        "options": options.identity(),
        "objective": without_addresses(repr(objective)),
        "data": {
            "train": _fingerprint(data.train),
            "val": None if data.val is None else _fingerprint(data.val),
            "augment": without_addresses(repr(data.augment)),
        },
        "model": {
            "T": getattr(model, "T", None),
            "parameters": sum(p.numel() for p in model.parameters()),
            "layers": [line.strip() for line in layers],
        },
    }
    revised = {name: text for piece in objective.pieces for name, text in piece.revised.items()}
    content |= {"revised": revised} if revised else {}
    return json.loads(json.dumps(content, default=str))  # type: ignore[no-any-return]


def difference(saved: Any, now: Any) -> str | None:
    """Return the first difference between two JSON values, or None."""
    return next(differences(saved, now), None)


def differences(saved: Any, now: Any, where: str = "") -> Iterator[str]:
    """Yield the differences of two JSON values, like "options.epochs was 10 and is now 20"."""
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


def _revised(saved: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first setting that had another meaning when the run was begun, and its present."""
    known = saved.get("revised", {})
    for name, meaning in now.get("revised", {}).items():
        if known.get(name) != meaning:
            return f"{name} is now {meaning}"
    return None


def _known_before(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without the facts of the data that an earlier version did not save."""
    before, data = saved.get("data", {}), dict(now["data"])
    for part in ("train", "val"):
        old = before.get(part) or {}
        if data[part] is not None:
            later = {name for name in _ADDED_LATER if name not in old}
            data[part] = {k: v for k, v in data[part].items() if k not in later}
    return {**now, "data": data}


_ADDED_LATER = ("peak", "drawn")


def _fingerprint(images: ImageSet) -> dict[str, Any]:
    """Return name, size and use of an image set, and a digest of its pixels and labels.

    ``drawn`` names what is drawn of each photograph that is read from disk.
    """
    digest = hashlib.blake2b(digest_size=16)
    held = getattr(images, "images", None)  # inputs that are read from disk are not held
    if held is None:
        digest.update(images.digest.encode())
    for tensor in (images.labels,) if held is None else (held, images.labels):
        digest.update(f"{tensor.dtype}{list(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
    drawn = [str(each) for each in getattr(images, "drawn", ())]
    found = {"name": images.name, "images": len(images), "digest": digest.hexdigest()}
    return {**found, "peak": float(images.peak), "drawn": drawn}


def optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Split the state of an optimiser into tensors and plain settings.

    Returns:
        Tensors named "parameter/slot", and the settings of each parameter group.
    """
    names = _names(optimizer, model)
    full = optimizer.state_dict()
    tensors = {
        f"{names[number]}/{slot}": value
        for number, slots in full["state"].items()
        for slot, value in slots.items()
        if value is not None  # SGD without momentum has an empty slot
    }
    groups = [{k: v for k, v in group.items() if k != "params"} for group in full["param_groups"]]
    return tensors, groups


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    groups: Sequence[Mapping[str, Any]],
) -> None:
    """Load the result of :func:`optimizer_state` into a new optimiser over the same parameters."""
    number = {name: i for i, name in enumerate(_names(optimizer, model))}
    slots: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        slots.setdefault(number[name], {})[slot] = value
    full = optimizer.state_dict()
    full["state"] = slots
    for group, saved in zip(full["param_groups"], groups, strict=True):
        if saved.keys() != group.keys() - {"params"}:
            raise ValueError(f"optimizer: a group has the settings {', '.join(sorted(saved))}")
        other = next((name for name in saved if _kind(saved[name]) != _kind(group[name])), None)
        if other is not None:
            raise ValueError(f"optimizer: {other} cannot be {saved[other]!r}")
        group.update(saved)
    optimizer.load_state_dict(full)


def _kind(value: Any) -> Any:
    """Return the kind of a setting: number, range, or its type."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return "range" if isinstance(value, list | tuple) else type(value)


def _names(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[str]:
    """Return the parameter names in the order of the optimiser's parameter numbers."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[p] for group in optimizer.param_groups for p in group["params"]]

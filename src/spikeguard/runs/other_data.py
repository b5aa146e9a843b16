"""A run on other test images than its own, such as corrupted ones: RUN with --data."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from spikeguard.config.builder import require_images
from spikeguard.config.data_sources import load_test_images
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins, is_reference
from spikeguard.data.datasets import DATASETS
from spikeguard.data.events.event_set import EventSet
from spikeguard.data.images import ImageSet
from spikeguard.data.own import EvaluationImages, find_own
from spikeguard.data.paths import data_root as root_of
from spikeguard.data.photos.photo_set import PhotoSet
from spikeguard.encoders.input_space import require_same_kind, space_of
from spikeguard.models.snn import SNN
from spikeguard.runs.foreign_model import ForeignSubject
from spikeguard.runs.model_card import image_facts, weights_of, write_or_check_card
from spikeguard.runs.run import Run
from spikeguard.storage.folder_lock import locked

__all__ = ["run_on_data"]


def run_on_data(
    run: Run, data: str, *, out: Path | None, limit: int | None = None
) -> ForeignSubject:
    """Return a run with other test images, and the folder of its results on them.

    The results are apart from those on the run's own images: in ``RUN/on/NAME``, a folder that
    ``report`` reads like that of a foreign model. Validation images remain those of the run.

    Args:
        run: The finished run.
        data: Name, path or reference of the images; see ``load_test_images``.
        out: Folder of the results, or None.
        limit: Number of images that will be attacked; None for all.

    Raises:
        ConfigError: If the images do not fit the run or are fewer than ``limit``, or the folder
            holds results of other weights or images.
    """
    images = _test_images(run, data)
    require_images(limit, EvaluationImages(images))
    path = run.path / "on" / _name(data, run.data_root) if out is None else out
    card = {"model": str(run.path), "data": data, **image_facts(images)}
    card |= {"weights": weights_of(run.model), "T": run.model.T}
    with locked(path, if_writable=True):
        more = {"arguments": [str(run.path), "--data", data]}
        write_or_check_card(path, card, more, free=("model", "data"))
    place = (run.path.absolute(), data, run.data_root)
    again = partial(_reloaded, *place, run.recipe.plugins, run.device)
    shown = replace(run.data, test=images)
    return ForeignSubject(path, run.model, shown, None, again, run.recipe.plugins)


def _test_images(run: Run, data: str) -> ImageSet:
    """Load the images, with the classes of the run; recordings are framed as the run's are."""
    own = run.data.test
    size = own.size if isinstance(own, PhotoSet) else None
    found = load_test_images(data, run.data_root, plugins=run.recipe.plugins, size=size).test
    if isinstance(found, EventSet) and isinstance(own, EventSet):
        found = replace(found, framing=own.framing)
    shape, trained = (list(each.batch(slice(1))[0].shape[1:]) for each in (found, own))
    if shape != trained:
        raise ConfigError(
            f"--data: {data} has images {shape}, the run was trained on {trained}; resize or "
            "convert them."
        )
    try:
        require_same_kind(space_of(run.model), found.space, f"--data: {data}")
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if own.classes and found.classes and own.classes != found.classes:
        return _by_name(found, own.classes, data)
    if found.num_classes > own.num_classes:
        raise ConfigError(
            f"--data: {data} has labels up to {int(found.labels.max())}, the run has "
            f"{own.num_classes} classes, numbered from 0."
        )
    return replace(found, num_classes=own.num_classes, classes=own.classes)


def _by_name(images: ImageSet, classes: tuple[str, ...], data: str) -> ImageSet:
    """Number the labels as the run does: by the names of the classes."""
    unknown = [name for name in images.classes if name not in classes]
    if unknown:
        raise ConfigError(
            f"--data: {data} has a class {unknown[0]!r}, the run has {', '.join(classes)}."
        )
    places = torch.tensor([classes.index(name) for name in images.classes])
    labels = places[images.labels]
    return replace(images, labels=labels, num_classes=len(classes), classes=classes)


def _name(data: str, root: Path | None) -> str:
    """Return a folder name for data: "fog" for CIFAR-10-C/fog.npy, "fog-5" for ImageNet-C/fog/5."""
    if is_reference(data):
        return data.replace(":", ".")
    found = None if data in DATASETS else find_own(data, root_of(root))
    given = Path(data)
    if found is not None and found.is_dir() and given.parent.name not in ("", ".."):
        return f"{given.parent.name}-{given.name}"
    return given.resolve().stem


def _reloaded(
    path: Path, data: str, data_root: Path | None, plugins: Plugins, device: str
) -> tuple[SNN, ImageSet]:
    run = Run.load(path, data_root=data_root, plugins=plugins, device=device)
    return run.model, _test_images(run, data)

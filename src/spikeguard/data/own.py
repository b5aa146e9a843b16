"""Data of the user's own: a file, a folder or an object, read as training and test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from spikeguard.data.array_files import read_npy, read_npz
from spikeguard.data.arrays import from_arrays
from spikeguard.data.columns import CLASSES, PARTS, is_column, part_columns, part_folders, part_of
from spikeguard.data.dataset_objects import from_dataset
from spikeguard.data.events.one_file import is_event_file, read_event_file
from spikeguard.data.events.own_events import from_recordings, has_events, read_event_folder
from spikeguard.data.events.recording import Recording
from spikeguard.data.folders import from_folder, has_images
from spikeguard.data.images import ImageSet, Splits, require_validation
from spikeguard.data.photos.photo_folders import photo_folder
from spikeguard.data.stratified import mixed_order

__all__ = ["EvaluationImages", "OwnData", "find_own", "own_data", "read_own"]

_LABELS = "labels.npy"


@dataclass(frozen=True, eq=False)
class EvaluationImages:
    """Images to attack, and where there are any, validation images to choose settings on.

    Args:
        test: Images to attack.
        val: Validation images, or None.
    """

    test: ImageSet
    val: ImageSet | None = None

    def validation(self, purpose: str) -> ImageSet:
        """Return the validation images.

        Args:
            purpose: What needs them, for the message.

        Raises:
            ValueError: If there are none.
        """
        remedy = f"{self.test.name} has none; add x_val and y_val, or a folder val"
        return require_validation(self.val, purpose, remedy)


@dataclass(frozen=True, eq=False)
class OwnData:
    """The parts of a user's data; ``whole`` is for images without a division into parts.

    Args:
        train: Training images, or None.
        val: Validation images, or None.
        test: Test images, or None.
        whole: All images of data that name no parts, or None.
        splits: The data as given, if they are ready for training already.
    """

    train: ImageSet | None = None
    val: ImageSet | None = None
    test: ImageSet | None = None
    whole: ImageSet | None = None
    splits: Splits | None = None

    def changed(self, change: Callable[[ImageSet], ImageSet]) -> OwnData:
        """Return the parts after ``change``."""
        parts = [self.train, self.val, self.test, self.whole]
        train, val, test, whole = (None if part is None else change(part) for part in parts)
        splits = self.splits
        if splits is not None and train is not None and test is not None:
            splits = replace(splits, train=train, val=val, test=test)
        return OwnData(train, val, test, whole, splits)

    def for_evaluation(self, where: str) -> EvaluationImages:
        """Return the images to attack: the test images, or all of data without parts.

        Raises:
            ValueError: If there are only training or validation images.
        """
        test = self.test or self.whole
        if test is None:
            raise ValueError(
                f"{where}: has no test images; add x_test and y_test, or a folder test."
            )
        val = None if self.val is None else mixed_order(self.val)
        return EvaluationImages(mixed_order(test), val)

    def for_training(self, where: str) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
        """Return training, validation and test images; images without parts are all for training.

        Raises:
            ValueError: If there are test images only.
        """
        train = self.train or self.whole
        if train is None:
            raise ValueError(
                f"{where}: has no training images; add x_train and y_train, or a folder train."
            )
        test = self.test if self.train is None else self.test or self.whole
        return train, self.val, None if test is None else mixed_order(test)


def find_own(name: str | Path, root: Path) -> Path | None:
    """Return the path of data of one's own; None if ``name`` names no file or folder.

    A relative path is looked for in the current folder, then in the folder of the data sets.
    """
    path = Path(name).expanduser()
    for each in (path, root / path):
        if each.exists():
            return each
    return None


def read_own(path: Path, size: int | None = None) -> OwnData:
    """Read a file or a folder.

    Args:
        path: An ``.npz`` file; an ``.npy`` file of images beside a ``labels.npy``, as CIFAR-10-C
            has them; a folder of class folders; or a folder with such folders train, val, test.
            Event recordings are a folder of ``.npz`` or HDF5 files (see ``read_event_folder``) or
            one such file (see ``read_event_file``).
        size: Pixels to which image files are cut when they are used, see ``PhotoSet``; None reads
            them into memory, and they all have the same size.

    Raises:
        ValueError: If it is something else, or damaged; the message says what to write.
    """
    if has_events(path) or is_event_file(path):
        read = read_event_folder if path.is_dir() else read_event_file
        return _with_same_classes({part or "whole": each for part, each in read(path).items()})
    if path.is_dir():
        return _read_folder(path, size)
    if path.suffix.lower() == ".npz":
        return _from_columns(read_npz(path, is_column), path.name)
    if path.suffix.lower() == ".npy":
        return _read_pair(path)
    raise ValueError(
        f"{path}: not a data file; SpikeGuard reads .npz (np.savez('data.npz', x=x, y=y)), .npy "
        "with a labels.npy beside it, folders of images by class, and event recordings in .npz, "
        ".h5 or .hdf5."
    )


def own_data(data: Any, name: str) -> OwnData:
    """Return an object as data: anything that ``read_own`` could have read from a file.

    Args:
        data: An ImageSet or EventSet, Splits, a pair (x, y), or (recordings, y) with a list of
            ``Recording``, two pairs (x_train, y_train), (x_test, y_test), a mapping of arrays (x,
            y, x_train, ...), a mapping of parts (train, test, ...), a Dataset or a DataLoader.
        name: Name in messages and results.

    Raises:
        ValueError: If it is something else, or its images or labels are rejected.
    """
    if isinstance(data, OwnData):
        return data
    if isinstance(data, Splits):
        return OwnData(data.train, data.val, data.test, splits=data)
    if isinstance(data, ImageSet):
        return OwnData(whole=data)
    if isinstance(data, Mapping):
        parts = {part: data[key] for key in data if (part := part_of(str(key))) is not None}
        return _from_parts(parts, name) if parts else _from_columns(data, name)
    if isinstance(data, tuple | list) and len(data) == 2 and _are_recordings(data[0]):
        return OwnData(whole=from_recordings(*data, name=name))
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        if all(isinstance(each, tuple | list) and len(each) == 2 for each in data):
            names = ("train", "test") if len(data) == 2 else PARTS
            return _from_parts(dict(zip(names, data, strict=True)), name)
        if len(data) == 2:
            return OwnData(whole=from_arrays(*data, name=name))
    return OwnData(whole=from_dataset(data, name=name))


def _are_recordings(given: Any) -> bool:
    return isinstance(given, tuple | list) and bool(given) and isinstance(given[0], Recording)


def _from_parts(parts: Mapping[str, Any], name: str) -> OwnData:
    found: dict[str, ImageSet] = {}
    for part, given in parts.items():
        inner = own_data(given, f"{name}/{part}").whole
        if inner is None:
            raise ValueError(f"{name}/{part}: has parts of its own; pass images and labels.")
        found[part] = inner
    return _with_same_classes(found)


def _from_columns(columns: Mapping[str, Any], name: str) -> OwnData:
    classes = next((columns[key] for key in CLASSES if key in columns), ())
    found: dict[str | None, ImageSet] = {}
    for part, (images, labels) in part_columns(columns, name).items():
        pair = {"x": columns[images], "y": columns[labels], CLASSES[0]: classes}
        found[part] = from_dataset(pair, name=f"{name}/{part}" if part else name)
    if None in found and "test" in found:
        raise ValueError(f"{name}: holds x and x_test; name the former x_train, or remove one.")
    return _with_same_classes({part or "whole": images for part, images in found.items()})


def _with_same_classes(parts: Mapping[str, ImageSet]) -> OwnData:
    """Give all parts the number of classes of the largest, and its class names."""
    most = max(parts.values(), key=lambda part: (part.num_classes, bool(part.classes)))
    for part in parts.values():
        if part.classes and part.classes != most.classes:
            raise ValueError(
                f"{part.name}: its classes are {', '.join(part.classes)}, those of {most.name} "
                f"{', '.join(most.classes)}; number both by the same names."
            )
    widest = max((part.space for part in parts.values()), key=lambda s: (s.high, not s.whole))
    same = {
        name: replace(
            part,
            num_classes=most.num_classes,
            classes=most.classes,
            space=widest if part.space.temporal and widest.temporal else part.space,
        )
        for name, part in parts.items()
    }
    return OwnData(same.get("train"), same.get("val"), same.get("test"), same.get("whole"))


def _read_folder(path: Path, size: int | None) -> OwnData:
    name, inner = path.resolve().name, _part_folders(path)
    read = from_folder if size is None else partial(photo_folder, size=size)
    if not inner:
        return OwnData(whole=read(_of_images(path), name=name))
    found: dict[str, ImageSet] = {}
    classes: tuple[str, ...] | None = (
        None  # those of the first, the training images if there are any
    )
    for part, folder in inner.items():
        found[part] = read(folder, classes=classes, name=f"{name}/{part}")
        classes = found[part].classes
    return _with_same_classes(found)


def _part_folders(path: Path) -> dict[str, Path]:
    """Return the folders train, val, test with class folders in them; "train" may be a class."""
    folders = [each for each in sorted(path.iterdir()) if each.is_dir() and has_images(each)]
    named = {part: each for each in folders if (part := part_of(each.name)) is not None}
    if not any(has_images(inner) for each in named.values() for inner in each.iterdir()):
        return {}
    return part_folders(path, folders, ())


def _of_images(path: Path) -> Path:
    """Return a folder, unless it holds arrays and not images."""
    arrays = sorted(path.glob("*.np[yz]"))
    if arrays and not has_images(path):
        file = next((each for each in arrays if each.name != _LABELS), arrays[0])
        raise ValueError(f"{path}: holds arrays; name one file of it, such as {file}.")
    return path


def _read_pair(path: Path) -> OwnData:
    labels = path.with_name(_LABELS)
    if path == labels:
        raise ValueError(f"{path}: holds labels; name the file of the images beside it.")
    if not labels.is_file():
        raise ValueError(
            f"{path}: needs its labels in {labels}; or save both in one file, "
            "np.savez('data.npz', x=x, y=y)."
        )
    return OwnData(whole=from_arrays(read_npy(path), read_npy(labels), name=path.name))

"""``spikeguard data download`` and ``spikeguard data check``: fetch and check data sets."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from spikeguard.cli.console import Plugin, allowed_plugins, progress, say, table
from spikeguard.cli.json_output import AsJson, write_result

if TYPE_CHECKING:
    from spikeguard.data.images import ImageSet, Splits

__all__ = ["check", "download"]


def download(name: str, /, *, json: AsJson = False, data_root: Path | None = None) -> int:
    """Fetch a data set from its official source and verify it.

    Args:
        name: Name of the data set (see 'spikeguard list datasets').
        json: Print the folder as JSON and nothing else on standard output.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.data.downloads import download as fetch

    with progress(f"download {name}") as update:

        def report(done: int, total: int | None) -> None:
            if total:
                update(done >> 10, total >> 10, f"{total >> 20} MB")

        folder = fetch(name, data_root, progress=report)
    say(f"{name} in {folder}")
    if json:
        write_result("data download", {"name": name, "folder": folder})
    return 0


def check(
    name: str | None = None,
    /,
    *,
    json: AsJson = False,
    plugin: Plugin = None,
    data_root: Path | None = None,
    skip_bad: bool = False,
) -> int:
    """Read every image of the data sets on this machine; report what is missing or changed.

    Each file of images is compared with the digest of the official one. Of event data every
    recording is read, and the recordings of each class are counted:

        spikeguard data check nmnist --skip-bad

    Args:
        name: Check only this data set, or own data; exit with code 2 if it is missing, damaged or
            changed.
        json: Print the states as JSON and nothing else on standard output.
        plugin: Package whose data set is named as package.module:Part; repeated or with commas. Its
            code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
        skip_bad: List the event recordings that cannot be read and count the others, instead of
            stopping at the first one.
    """
    from spikeguard.config.data_sources import load_images
    from spikeguard.data.datasets import DATASETS
    from spikeguard.data.official import ChangedFileWarning

    rows, events, plugins = [], {}, allowed_plugins(plugin)
    for each in DATASETS if name is None else [name]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ChangedFileWarning)
                data = load_images(
                    each,
                    data_root,
                    where="data check",
                    plugins=plugins,
                    val_fraction=0,
                    **_size(each),
                )
            found = _read_events(data, skip_bad)
            _read_photos(data)
        except (ValueError, ChangedFileWarning) as error:
            if name is not None:
                raise
            rows.append((each, "", "", "", str(error)))
        else:
            train, test = _counts(data.train, data.val), _counts(data.test)
            if found is not None:
                (train, test), events[each] = found.sizes, found
            state = "complete" if found is None or not found.skipped else found.state
            shape = " x ".join(map(str, data.test.shape))
            rows.append((each, str(sum(train)), str(sum(test)), shape, state))
    table(("data set", "train", "test", "shape", "state"), rows)
    for found in events.values():
        if name is not None:
            table(("class", "train", "test"), [tuple(map(str, row)) for row in found.by_class])
        for line in found.skipped:
            say(f"skipped: {line}")
    if json:
        sets = [_as_json(*row) for row in rows]
        write_result(
            "data check",
            {"data_sets": [each | _events_as_json(events.get(str(each["name"]))) for each in sets]},
        )
    return 0


@dataclass(frozen=True)
class _Events:
    """The event recordings of a data set after each was read once."""

    classes: Sequence[str]
    sizes: list[list[int]]  # recordings of each class, to train and to test
    skipped: list[str]

    @property
    def state(self) -> str:
        return f"{len(self.skipped)} skipped"

    @property
    def by_class(self) -> list[tuple[str, int, int]]:
        return list(zip(self.classes, *self.sizes, strict=True))


def _read_events(data: Splits, skip_bad: bool) -> _Events | None:
    """Read every recording; None for images, all of which are in memory already."""
    from spikeguard.data.events.event_set import EventSet

    sizes, skipped = [[0] * data.test.num_classes for _ in range(2)], list[str]()
    for place, part in enumerate((data.train, data.test, data.val)):
        if isinstance(part, EventSet):
            kept = part.readable() if skip_bad else part.read_all()
            skipped += kept.skipped
            counts = _counts(kept)
            sizes[place % 2] = [a + b for a, b in zip(sizes[place % 2], counts, strict=True)]
    if not isinstance(data.test, EventSet):
        return None
    return _Events(
        data.test.classes or [str(k) for k in range(data.test.num_classes)], sizes, skipped
    )


def _size(name: str) -> dict[str, int]:
    """Return the argument ``size`` of image files, any of which is decoded in full."""
    from spikeguard.data.datasets import DATASETS

    return {"size": 64} if name in DATASETS and DATASETS[name].sized else {}


def _read_photos(data: Splits) -> None:
    """Decode every image that is read from a file only when it is used."""
    from spikeguard.data.photos.photo_set import PhotoSet

    for part in (data.train, data.val, data.test):
        if isinstance(part, PhotoSet):
            part.read_all()


def _counts(*parts: ImageSet | None) -> list[int]:
    """Return the number of samples of each class."""
    found = [
        part.labels.bincount(minlength=part.num_classes).tolist()
        for part in parts
        if part is not None
    ]
    return [sum(counts) for counts in zip(*found, strict=True)]


def _events_as_json(found: _Events | None) -> dict[str, object]:
    if found is None:
        return {}
    classes = [dict(zip(("name", "train", "test"), row, strict=True)) for row in found.by_class]
    return {"classes": classes, "skipped": found.skipped}


def _as_json(name: str, train: str, test: str, shape: str, state: str) -> dict[str, object]:
    """Return a row as plain data; counts and shape are null where the images cannot be read."""
    counts = {"train": int(train) if train else None, "test": int(test) if test else None}
    size = [int(number) for number in shape.split(" x ")] if shape else None
    return {"name": name, **counts, "shape": size, "state": state}

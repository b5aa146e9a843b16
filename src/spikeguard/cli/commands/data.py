"""``spikeguard data download`` and ``spikeguard data check``: fetch and check data sets."""

from __future__ import annotations

import warnings
from pathlib import Path

from spikeguard.cli.console import Plugin, allowed_plugins, progress, say, table
from spikeguard.cli.json_output import AsJson, write_result

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
) -> int:
    """Read every image of the data sets on this machine; report what is missing or changed.

    Each file is compared with the digest of the official one.

    Args:
        name: Check only this data set; exit with code 2 if it is missing, damaged or changed.
        json: Print the states as JSON and nothing else on standard output.
        plugin: Package whose data set is named as package.module:Part; repeated or with commas. Its
            code runs.
        data_root: Folder of the data sets; $SPIKEGUARD_DATA or ./data when left out.
    """
    from spikeguard.config.data_sources import load_images
    from spikeguard.data.datasets import DATASETS
    from spikeguard.data.official import ChangedFileWarning

    rows, plugins = [], allowed_plugins(plugin)
    for each in DATASETS if name is None else [name]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ChangedFileWarning)
                data = load_images(each, data_root, where="data check", plugins=plugins)
        except (ValueError, ChangedFileWarning) as error:
            if name is not None:
                raise
            rows.append((each, "", "", "", str(error)))
        else:
            train = len(data.train) + len(data.validation("data check"))
            shape = " x ".join(map(str, data.test.shape))
            rows.append((each, str(train), str(len(data.test)), shape, "complete"))
    head = ("data set", "train", "test", "shape", "state")
    table(head, rows)
    if json:
        write_result("data check", {"data_sets": [_as_json(*row) for row in rows]})
    return 0


def _as_json(name: str, train: str, test: str, shape: str, state: str) -> dict[str, object]:
    """Return a row as plain data; counts and shape are null where the images cannot be read."""
    counts = {"train": int(train) if train else None, "test": int(test) if test else None}
    size = [int(number) for number in shape.split(" x ")] if shape else None
    return {"name": name, **counts, "shape": size, "state": state}

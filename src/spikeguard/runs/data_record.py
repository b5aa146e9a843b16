"""The record of a run's own data in ``environment.json``, compared when the run is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikeguard.config.errors import ConfigError
from spikeguard.storage.run_folder import ENVIRONMENT

if TYPE_CHECKING:
    from spikeguard.data.images import Splits

__all__ = ["data_record", "require_recorded_data"]


def data_record(name: str, data: Splits) -> dict[str, Any]:
    """Return what a run records of its test images; nothing of images of the registry.

    Of event data the registry's names do not say which recordings there are, so these are recorded,
    and the messages about those that were skipped in "skipped_recordings".
    """
    from spikeguard.data.datasets import DATASETS
    from spikeguard.data.events.event_set import EventSet

    if not isinstance(data.test, EventSet):
        return {} if name in DATASETS else {"data": data.test.describe()}
    trained = data.train.skipped if isinstance(data.train, EventSet) else ()
    skipped = [*trained, *data.test.skipped]
    record = {"data": data.test.describe()}
    return {**record, "skipped_recordings": skipped} if skipped else record


def require_recorded_data(path: Path, name: str, data: Splits) -> None:
    """Reject a run whose file, folder or function of images has changed since the training.

    Raises:
        ConfigError: If the test images are others than the recorded ones, or the record is damaged.
    """
    file = path / ENVIRONMENT
    if not file.is_file():
        return
    try:
        recorded = json.loads(file.read_text(encoding="utf-8")).get("data")
        digest = None if recorded is None else recorded["images"]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ConfigError(f"{file}: damaged; the images of the training are unknown.") from error
    if digest is not None and digest != data.test.digest:
        raise ConfigError(
            f"{path}: {name} has other test images than at the training; restore them, and attack "
            "other images with --data."
        )

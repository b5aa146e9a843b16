"""Digests of the official files, and the warning about a data set that is not the official one.

The SHA-256 of each file was computed from files whose pixels, labels and archives have the
published checksums; the MD5 of the python versions of CIFAR are those that torchvision publishes.
A compressed MNIST file is compared by its content.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import warnings
from collections.abc import Sequence
from pathlib import Path

__all__ = ["OFFICIAL", "ChangedFileWarning", "digest", "is_official", "warn_of_changes"]

OFFICIAL: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte": (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
        ),
        "train-labels-idx1-ubyte": (
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
        ),
        "t10k-images-idx3-ubyte": (
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
        ),
        "t10k-labels-idx1-ubyte": (
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
        ),
    },
    "cifar10": {
        "data_batch_1.bin": "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "data_batch_2.bin": "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "data_batch_3.bin": "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "data_batch_4.bin": "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "data_batch_5.bin": "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
        "test_batch.bin": "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "train.bin": "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",
        "test.bin": "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}
_MD5 = 32  # characters of a digest


class ChangedFileWarning(UserWarning):
    """A file of a data set is not the official one; results on it are not comparable."""


def is_official(name: str, file: str, content: Path | bytes) -> bool:
    """Return whether a file of a data set has its official digest.

    Args:
        name: Name of the data set.
        file: Official name of the file, uncompressed.
        content: The file, or what is in it.
    """
    wanted = OFFICIAL[name][file]
    return digest(content, "md5" if len(wanted) == _MD5 else "sha256") == wanted


def digest(content: Path | bytes, method: str = "sha256") -> str:
    """Return the digest of a file or of bytes."""
    made = hashlib.new(method, usedforsecurity=False)
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, lambda: made).hexdigest()
    made.update(content)
    return made.hexdigest()


def warn_of_changes(name: str, changed: Sequence[Path]) -> None:
    """Warn that files of a data set are not official; in the main process only."""
    if not changed or multiprocessing.parent_process() is not None:
        return
    files = ", ".join(str(path) for path in changed)
    what = "is not the official file" if len(changed) == 1 else "are not the official files"
    warnings.warn(
        f"{name}: changed: {files} {what}; fetch it again with 'spikeguard data download {name}', "
        "or compare no result on it with results on the official images.",
        ChangedFileWarning,
        stacklevel=2,
    )

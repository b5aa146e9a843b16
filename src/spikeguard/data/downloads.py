"""Download the official files over HTTP: resumed when interrupted, checked by MD5.

A download is written to a ``.part`` file beside its target. If it is interrupted, the file stays
and the next attempt requests the rest. Only a file with the official checksum gets the final name.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from io import FileIO
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from spikeguard.data.archives import extract
from spikeguard.data.by_hand import BY_HAND
from spikeguard.data.cifar import CIFAR10, CIFAR100
from spikeguard.data.official import OFFICIAL, is_official
from spikeguard.data.paths import data_root

__all__ = ["SOURCES", "DownloadError", "Progress", "Source", "download"]

Progress = Callable[[int, int | None], None]

_CHUNK = 1 << 18


class DownloadError(ValueError):
    """A file could not be downloaded; the message is one line and names a remedy."""


@dataclass(frozen=True)
class Source:
    """The official source of a data set.

    Args:
        url: Folder on the server, ending in a slash.
        files: Name and official MD5 of each file.
        folder: Folder under the data root for the files or, from an archive, its members.
        members: For an archive: name and size in bytes of each file to extract.
    """

    url: str
    files: dict[str, str]
    folder: str
    members: dict[str, int] | None = None


SOURCES = {
    "mnist": Source(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        "MNIST/raw",
    ),
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        CIFAR10.binary,
        CIFAR10.sizes,
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
        CIFAR100.binary,
        CIFAR100.sizes,
    ),
}


def download(
    name: str,
    root: str | Path | None = None,
    *,
    progress: Progress | None = None,
    url: str | None = None,
    timeout: float = 30.0,
    attempts: int = 5,
    backoff: Callable[[int], None] | None = None,
) -> Path:
    """Download a data set and return its folder; complete files are not downloaded again.

    Args:
        name: "mnist", "cifar10" or "cifar100"; "digits" ships with the package, and event data sets
            have to be fetched by hand: the error says where.
        root: Folder of the data sets; default ``$SPIKEGUARD_DATA``, else ``data``.
        progress: Called with the bytes done and the bytes in total (None if the server does not
            say) of the current file.
        url: Folder of a mirror with the same files.
        timeout: Seconds without a byte after which a connection counts as stalled.
        attempts: Attempts per file, >= 1; each resumes where the last one stopped.
        backoff: Called with 1, 2, ... to wait before another attempt; default 1, 2, 4, ... seconds.

    Raises:
        DownloadError: If the server rejects the request, stalls, closes the connection or sends a
            file with another checksum, or if the disk is full.
    """
    if name in BY_HAND:
        raise DownloadError(f"download: {name} has no lasting address; {BY_HAND[name]}")
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise DownloadError(f"download: {name!r} has nothing to download; known: {known}.")
    source = SOURCES[name]
    base = source.url if url is None else url.rstrip("/") + "/"
    if not base.startswith(("https://", "http://")):
        raise DownloadError(f"download: url starts with https:// or http://, got {base!r}.")
    folder = data_root(root) / source.folder
    if source.members is not None and all(
        _complete(name, folder / member, size) for member, size in source.members.items()
    ):
        return folder
    place = folder if source.members is None else folder.parent
    with _writing(place):
        place.mkdir(parents=True, exist_ok=True)
    for file, md5 in source.files.items():
        target = place / file
        if not (target.is_file() and _md5(target) == md5):
            _fetch(base + file, target, md5, progress, timeout, attempts, backoff or _pause)
        if source.members is not None:
            _extract(target, folder, source.members)
    return folder


def _complete(name: str, path: Path, size: int) -> bool:
    """Return whether an extracted file is whole and, where its digest is known, official."""
    if not path.is_file() or path.stat().st_size != size:
        return False
    return path.name not in OFFICIAL.get(name, {}) or is_official(name, path.name, path)


def _fetch(
    url: str,
    target: Path,
    md5: str,
    progress: Progress | None,
    timeout: float,
    attempts: int,
    backoff: Callable[[int], None],
) -> None:
    """Download one file to ``target``, in several attempts if needed."""
    part = target.with_name(f"{target.name}.part")
    reason = "no attempt was allowed"
    for attempt in range(attempts):
        if attempt:
            backoff(attempt)
        try:
            _transfer(url, part, progress, timeout)
            break
        except HTTPError as error:
            error.close()
            reason = f"the server answered {error.code} {error.reason}"
            if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.exists():
                if _md5(part) == md5:
                    break  # complete; only the rename was missing
                part.unlink()
            elif error.code < 500 and error.code not in (408, 429):
                raise DownloadError(f"download: {url}: {reason}; try a mirror (url=).") from error
        except (OSError, http.client.HTTPException) as error:
            reason = _network_reason(error, timeout)
    else:
        kept = part.stat().st_size if part.exists() else 0
        raise DownloadError(
            f"download: {url}: {reason}, after {attempts} attempts; {kept} bytes are kept in "
            f"{part}, run it again to resume."
        )
    found = _md5(part)
    if found != md5:
        part.unlink()
        raise DownloadError(
            f"download: {url}: expected MD5 {md5}, got {found}; the file was removed, run it "
            "again or try a mirror (url=)."
        )
    os.replace(part, target)  # noqa: PTH105 - the one call that is atomic by contract


def _transfer(url: str, part: Path, progress: Progress | None, timeout: float) -> None:
    """Append the rest of the file to ``part``, in one request."""
    done = part.stat().st_size if part.exists() else 0
    request = Request(url, headers={"Range": f"bytes={done}-"} if done else {})
    with urlopen(request, timeout=timeout) as response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            done = 0  # the server ignores the range and sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise ConnectionError("the server sent another range than the one asked for")
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdecimal() else None
        with _writing(part):
            file = part.open("ab" if done else "wb", buffering=0)
        with file:
            while chunk := response.read1(_CHUNK if total is None else min(_CHUNK, total - done)):
                with _writing(part):
                    _store(file, chunk)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
            with _writing(part):
                os.fsync(file.fileno())
    if total is not None and done < total:
        raise ConnectionError(f"the connection closed after {done} of {total} bytes")


def _extract(archive: Path, folder: Path, members: dict[str, int]) -> None:
    """Extract the members of a checked archive and remove it."""
    try:
        with _writing(folder):
            extract(archive, folder, members)
            archive.unlink()
    except DownloadError:
        raise
    except ValueError as error:
        raise DownloadError(f"download: {error}") from error


def _store(file: FileIO, chunk: bytes) -> None:
    """Write all of ``chunk``; an unbuffered file may accept only a part of it."""
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Distinguish a disk error from a broken connection, which is an OSError too."""
    try:
        yield
    except OSError as error:
        raise DownloadError(
            f"download: cannot write {path}: {error.strerror or error}; free some space or choose "
            "another root, and run it again."
        ) from error


def _network_reason(error: OSError | http.client.HTTPException, timeout: float) -> str:
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"the connection stalled for {timeout:g} s"
    return str(cause) or type(cause).__name__


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _pause(attempt: int) -> None:
    """Wait 1, 2, 4, ... seconds, 30 at most."""
    time.sleep(min(2.0 ** (attempt - 1), 30.0))

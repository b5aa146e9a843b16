"""Pack what a machine without a network needs into parts, and unpack what has come of them.

A folder of parts holds ``source.tar.gz``, ``wheels-N.tar``, ``cifar10-FILE.npz`` and
``manifest.json``, which has the size and the SHA-256 of each. No part is larger than 64 MiB.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LARGEST", "MANIFEST", "CIFAR", "pack", "unpack", "wheels_for"]

LARGEST = 64 << 20
MANIFEST = "manifest.json"
ROOT = Path(__file__).resolve().parents[2]
CIFAR = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
THERE = ("torch", "triton", "numpy", "setuptools")  # a machine with a GPU has these, or cannot run
_PEERS = ("snntorch", "spikingjelly", "norse", "loguru", "nir", "nirtorch")  # of "make bench-peers"
_TESTS = ("pytest", "pytest-xdist", "hypothesis")
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014", "manylinux1")


def pack(
    out: Path,
    *,
    wheels: Iterable[Path],
    cifar: Path | None,
    largest: int = LARGEST,
) -> list[str]:
    """Write the parts and their manifest.

    Args:
        out: A folder, created; parts of earlier calls are replaced.
        wheels: Wheels to pack, in as many parts as needed.
        cifar: Folder with the binary version of CIFAR-10, or None.
        largest: Bytes of a part.

    Returns:
        One line for each part.

    Raises:
        ValueError: If a part would be larger, or a file of CIFAR-10 is missing.
    """
    for path in () if cifar is None else (cifar / f"{name}.bin" for name in CIFAR):
        if not path.is_file():
            raise ValueError(f"--pack: {path} is missing; run 'spikeguard data download cifar10'.")
    out.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, "source.tar.gz", "wheels-*.tar", "cifar10-*.npz"):
        for old in out.glob(name):
            old.unlink()
    written = [_source(out / "source.tar.gz"), *_wheels(out, list(wheels), largest)]
    if cifar is not None:
        written += [_cifar(cifar / f"{name}.bin", out / f"cifar10-{name}.npz") for name in CIFAR]
    parts = [
        {"name": path.name, "bytes": path.stat().st_size, "sha256": _digest(path)}
        for path in written
    ]
    for part in parts:
        if part["bytes"] > largest:
            raise ValueError(f"--pack: {part['name']} has {part['bytes']} bytes, over {largest}.")
    (out / MANIFEST).write_text(json.dumps({"parts": parts}, indent=1))
    return [f"{part['name']}: {part['bytes'] / 2**20:.1f} MiB" for part in parts]


def unpack(parts: Path, work: Path, *, python: str = sys.executable) -> tuple[list[str], list[str]]:
    """Unpack the parts that are there into a work folder; each is unpacked once.

    ``work/site`` gets the packages that Python here lacks, ``work/data`` CIFAR-10.

    Args:
        parts: Folder with the manifest and some of the parts.
        work: The work folder.
        python: The interpreter that will run the check.

    Returns:
        Lines about what was unpacked, and one line for each part that is missing or damaged.

    Raises:
        ValueError: If there is no manifest, or it is damaged.
    """
    file = parts / MANIFEST
    try:
        listed = [
            (p["name"], p["bytes"], p["sha256"]) for p in json.loads(file.read_text())["parts"]
        ]
    except FileNotFoundError:
        raise ValueError(
            f"--unpack: {parts} holds no {MANIFEST}; bring it with the parts."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--unpack: {file} is damaged ({error!r}); bring it again.") from error
    done_file = work / "unpacked.json"
    done: dict[str, str] = json.loads(done_file.read_text()) if done_file.exists() else {}
    lines, problems = [], []
    for name, size, digest in listed:
        path = parts / name
        if done.get(name) == digest:
            continue
        if not path.exists():
            problems.append(f"part {name}: not here yet")
        elif path.stat().st_size != size or _digest(path) != digest:
            problems.append(
                f"part {name}: damaged, its SHA-256 is not the manifest's; bring it again"
            )
        else:
            lines.append(_unpacked(path, work, python))
            done[name] = digest
            work.mkdir(parents=True, exist_ok=True)
            done_file.write_text(json.dumps(done))
    return lines, problems


def wheels_for(python: str, into: Path) -> tuple[list[Path], list[str]]:
    """Download wheels of what SpikeGuard, its tests and its peers need, but for torch and numpy.

    Args:
        python: Version of Python on the other machine, such as "3.12".
        into: Folder for the wheels.

    Returns:
        The wheels, and one line for each package without one.
    """
    into.mkdir(parents=True, exist_ok=True)
    for old in into.glob("*.whl"):
        old.unlink()
    problems = []
    platform = [f"--platform={name}_x86_64" for name in _PLATFORMS]
    target = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platform]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    download = [*pip, "download", "--no-deps", *target, "-d", str(into)]
    build = [*pip, "wheel", "--no-deps", "-w", str(into)]  # Norse has no wheel of its own
    needs = [(name, download) for name in _closure(["spikeguard", *_TESTS])]
    for need, words in [*needs, *((name, build) for name in _PEERS)]:
        ended = subprocess.run([*words, need], capture_output=True, text=True, check=False)
        if ended.returncode:
            said = (ended.stderr.strip().splitlines() or ["no message"])[-1]
            problems.append(f"{need}: no wheel ({said[:150]})")
    compiled = [wheel for name in _PEERS for wheel in into.glob(f"{name}-*.whl")]
    for wheel in (wheel for wheel in compiled if not wheel.stem.endswith("-none-any")):
        problems.append(f"{wheel.name}: built for this Python only, left out")
        wheel.unlink()
    return sorted(into.glob("*.whl")), problems


def _closure(names: Iterable[str]) -> list[str]:
    """Return the installed packages that these need, as NAME==VERSION, but for those ``THERE``."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found or name in THERE or name.startswith("nvidia-"):
            continue
        try:
            found[name] = version(name)
            needs = requires(name) or []
        except PackageNotFoundError:
            continue  # needed on other platforms only
        listed = map(Requirement, needs)
        here = {"extra": ""}
        waiting += [n.name for n in listed if n.marker is None or n.marker.evaluate(here)]
    return [f"{name}=={found[name]}" for name in sorted(found) if name != "spikeguard"]


def _source(path: Path) -> Path:
    """Pack the files that git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    with tarfile.open(path, "w:gz") as archive:
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (ROOT / name).is_file():
                archive.add(ROOT / name, arcname=name)
    return path


def _wheels(out: Path, wheels: list[Path], largest: int) -> list[Path]:
    """Pack wheels into as few archives as fit, in their order."""
    groups: list[list[Path]] = []
    room = 0
    for wheel in wheels:
        size = wheel.stat().st_size + 4096  # the header and the padding of an archive
        if not groups or size > room:
            groups.append([])
            room = largest - 20480
        groups[-1].append(wheel)
        room -= size
    written = []
    for number, group in enumerate(groups):
        written.append(out / f"wheels-{number}.tar")
        with tarfile.open(written[-1], "w") as archive:
            for wheel in group:
                archive.add(wheel, arcname=wheel.name)
    return written


def _cifar(source: Path, path: Path) -> Path:
    """Write one file of the binary version as labels and pixels."""
    rows = np.fromfile(source, np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    found = io.BytesIO()
    np.savez_compressed(found, y=rows[:, 0], x=rows[:, 1:].reshape(-1, 3, 32, 32))
    path.write_bytes(found.getvalue())
    return path


def _unpacked(path: Path, work: Path, python: str) -> str:
    """Unpack one part and return a line about it."""
    if path.name.startswith("cifar10-"):
        name = path.name.removeprefix("cifar10-").removesuffix(".npz")
        folder = work / "data" / "cifar-10-batches-bin"
        folder.mkdir(parents=True, exist_ok=True)
        with np.load(path) as part:
            rows = np.concatenate([part["y"][:, None], part["x"].reshape(len(part["y"]), -1)], 1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
        return f"part {path.name}: {len(rows)} images"
    if path.name.startswith("wheels-"):
        folder = work / path.name.removesuffix(".tar")
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
        return f"part {path.name}: {_install(sorted(folder.glob('*.whl')), work / 'site', python)}"
    return f"part {path.name}: is whole; it is unpacked by hand"


def _install(wheels: list[Path], site: Path, python: str) -> str:
    """Install those wheels whose package the interpreter lacks; return what was done."""
    code = "import sys, importlib.metadata as m\nfor n in sys.argv[1:]:\n try: m.version(n)\n"
    code += " except m.PackageNotFoundError: print(n)"
    names = {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in wheels}
    asked = subprocess.run([python, "-c", code, *names], capture_output=True, text=True, check=True)
    lacking = asked.stdout.split()
    if lacking:
        words = [
            "-m",
            "pip",
            "install",
            "-q",
            "--no-index",
            "--no-deps",
            "--no-compile",
            "--target",
        ]
        files = [str(names[name]) for name in lacking]
        done = subprocess.run([python, *words, str(site), *files], capture_output=True, text=True)
        if done.returncode:
            return f"pip failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"
    return f"{len(lacking)} of {len(wheels)} packages installed, the others are there"


def write_metadata(site: Path) -> None:
    """Describe SpikeGuard, which runs from its sources, as an installed package of its version."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = site / f"spikeguard-{project['version']}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: spikeguard\nVersion: {project['version']}\n"
    (folder / "METADATA").write_text(text)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_root(work: Path, given: str | None) -> str | None:
    """Return the folder of the data sets: that given, the unpacked one, or the environment's."""
    if given is not None:
        return given
    return str(work / "data") if (work / "data").exists() else os.environ.get("SPIKEGUARD_DATA")

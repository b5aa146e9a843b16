"""Build hook: compile the CPU kernel where there is a C++ compiler; say why where there is none.

One library for each instruction set, so that the package runs on every machine of the architecture
and takes the best at run time. Nothing fails here: without a library the pure-torch kernel is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FLAGS = [
    *("-O3", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall"),
    # no fused multiply-add but where it is written: the bits are those of the plain torch loop
    *("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"),
]
_LEVELS = {"v4": "x86-64-v4", "v3": "x86-64-v3", "base": "x86-64"}


class CPUKernel(BuildHookInterface):  # type: ignore[type-arg]
    """Compile src/spikeguard/kernels/cpu/cpu.cpp beside itself, and write down what came of it."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Run before an editable install or a wheel is made."""
        folder = Path(self.root, "src", "spikeguard", "kernels", "cpu")
        libraries, reason = compile_kernel(folder)
        if libraries:
            self.app.display_info(f"CPU kernel compiled: {', '.join(libraries)}")
        else:
            self.app.display_warning(f"CPU kernel not compiled: {reason}")
        made = ["_cpu.json", *libraries.values()]
        build_data["artifacts"] += [f"src/spikeguard/kernels/cpu/{name}" for name in made]
        if libraries:
            build_data["pure_python"] = False
            tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{tag}"


def compile_kernel(folder: Path) -> tuple[dict[str, str], str]:
    """Compile ``cpu.cpp`` and its headers in ``folder`` for every instruction set.

    Returns:
        The libraries' file names by instruction set, and why there are none.
    """
    source = folder / "cpu.cpp"
    for old in folder.glob("_cpu*.so"):
        old.unlink()
    libraries, reason = {}, ""
    compiler = _compiler()
    if compiler is None:
        reason = "no C++ compiler was found when the package was installed (looked for $CXX, c++)"
    else:
        x86 = platform.machine().lower() in ("x86_64", "amd64")
        for level, march in _LEVELS.items() if x86 else [("base", None)]:
            name = f"_cpu_{level}.so"
            arch = [f"-march={march}"] if march else []
            command = [*compiler, *_FLAGS, *arch, str(source), "-o", str(folder / name)]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                reason = f"{compiler[0]} cannot be run: {error.strerror}"
                break
            if done.returncode == 0:
                libraries[level] = name
            else:
                words = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
                reason = f"{compiler[0]} failed when the package was installed: {words[0]}"
    card = {
        "libraries": libraries,
        "reason": "" if libraries else reason,
        "source": _digest(folder),
    }
    written = folder / "_cpu.json.new"
    written.write_text(json.dumps(card, indent=1) + "\n")
    written.replace(folder / "_cpu.json")
    return libraries, reason


def _digest(folder: Path) -> str:
    """The same as in library.py, which refuses a library compiled from other files."""
    files = sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _compiler() -> list[str] | None:
    chosen = os.environ.get("CXX")
    if chosen:
        return shlex.split(chosen)
    names = ("c++", "g++", "clang++")
    return next(([name] for name in names if shutil.which(name)), None)

"""Load the library compiled from cpu.cpp and call its functions through ctypes."""

from __future__ import annotations

import ctypes
import hashlib
import json
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

__all__ = [
    "LONGEST",
    "Combine",
    "Draws",
    "Retrace",
    "Sharpen",
    "Side",
    "Task",
    "Windows",
    "call",
    "pointer",
    "why_not",
]

LONGEST = 512  # elements in a block, kLongest in blocks.h
PRECISION = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}

_HERE = Path(__file__).parent
_LEVELS = {"AVX512": ("v4", "v3", "base"), "AVX2": ("v3", "base")}  # for torch's instruction sets


class Side(ctypes.Structure):
    """A decay or gate; the same structure as in interface.h."""

    _fields_ = [("data", ctypes.c_void_p)] + [
        (name, ctypes.c_int64) for name in ("per_step", "per_channel", "full")
    ]


class Task(ctypes.Structure):
    """One call of the recurrence; the same structure as in interface.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("T", "S", "N", "C", "inner")),
        *((name, ctypes.c_void_p) for name in ("x", "scale", "shift")),
        ("decay", Side),
        ("gate", Side),
        ("noise", ctypes.c_void_p),
        ("v_th", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("soft", "detach", "surrogate")),
        ("p", ctypes.c_double),
        ("smooth", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("spikes", "v", "d_spikes", "d_v", "dx")),
        ("dx_is_membrane", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("sums", "d_decay", "d_gate")),
        *((name, ctypes.c_void_p) for name in ("d_decay_full", "d_gate_full", "d_noise")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "width")),
    ]


class Combine(ctypes.Structure):
    """One call of ``combine``; the same structure as in interface.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "N", "C", "inner")),
        *((name, ctypes.c_void_p) for name in ("g", "x", "dx", "a", "b", "c")),
    ]


class _Pool(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("parallel", "thread_number", "thread_count")),
        ("threads", ctypes.c_int64),
    ]


class Retrace(ctypes.Structure):
    """One backward pass with a given slope; the same structure as in interface.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("T", "N", "C", "inner")),
        *((name, ctypes.c_void_p) for name in ("v", "slope", "grad")),
        ("slope_steps", ctypes.c_int64),
        ("decay", Side),
        ("v_th", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("soft", "detach")),
        *((name, ctypes.c_void_p) for name in ("scale", "dx")),
        ("total", ctypes.c_int64),
    ]


class Sharpen(ctypes.Structure):
    """One update of ASSG's moments; the same structure as in interface.h."""

    _fields_ = [
        ("count", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("v", "M", "D", "slope")),
        *((name, ctypes.c_double) for name in ("v_th", "sharpness", "beta", "relaxed", "small")),
        ("learns", ctypes.c_int64),
    ]


class Windows(ctypes.Structure):
    """Average pooling, forward or backward; the same structure as in interface.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("images", "height", "width", "C")),
        *((name, ctypes.c_int64) for name in ("rows", "columns")),
        *((name, ctypes.c_void_p) for name in ("x", "out")),
    ]


class Draws(ctypes.Structure):
    """Uniform numbers of many streams; the same structure as in interface.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("streams", "count", "first")),
        *((name, ctypes.c_void_p) for name in ("state", "numbers", "angle")),
    ]


def why_not() -> str | None:
    """Return the reason why the kernel cannot run on this machine; None if it can."""
    return _library()[1]


def pointer(x: Tensor | None) -> int | None:
    """Return the data pointer of a tensor, or None for None."""
    return None if x is None else x.data_ptr()


def call(what: str, task: ctypes.Structure, precision: torch.dtype) -> None:
    """Run a function of the library on torch's threads."""
    library, reason = _library()
    if library is None:
        raise RuntimeError(f"the CPU kernel cannot be used: {reason}.")
    pool = _Pool(*_openmp(), torch.get_num_threads())
    run = library[f"spikeguard_{what}"]
    run(ctypes.byref(task), ctypes.byref(pool), ctypes.c_int(PRECISION[precision]))


@cache
def _library() -> tuple[ctypes.CDLL | None, str | None]:
    """Return the library for this processor, or None and the reason why there is none."""
    manifest = _HERE / "_cpu.json"
    if not manifest.exists():
        return None, "it was not compiled when the package was installed"
    built = json.loads(manifest.read_text())
    if not built["libraries"]:
        return None, built["reason"]
    if built["source"] != _digest(_HERE):
        return None, "it was compiled from other source files; install the package again"
    wanted = _LEVELS.get(torch.backends.cpu.get_cpu_capability(), ("base",))
    for level in wanted:
        if level in built["libraries"]:
            try:
                library = ctypes.CDLL(str(_HERE / built["libraries"][level]))
            except OSError as error:
                return None, f"its library cannot be loaded ({error})"
            library.spikeguard_layout.restype = ctypes.c_int64
            assert library.spikeguard_layout() == _layout(), "library.py and interface.h disagree"
            return library, None
    return None, "no library was compiled for this processor"


def _digest(folder: Path) -> str:
    """The same as in the build hook: of all source files of the kernel."""
    files = sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _layout() -> int:
    sizes = 0
    for structure in (Task, Combine, Retrace, Sharpen, Windows, Draws):
        sizes = sizes * 31 + ctypes.sizeof(structure)
    return sizes


@cache
def _openmp() -> tuple[int | None, int | None, int | None]:
    """Return the entry points of the OpenMP runtime that torch has loaded; None if not found."""
    try:
        found = ctypes.CDLL(None)
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        parallel, number, count = (
            ctypes.cast(getattr(found, name), ctypes.c_void_p).value for name in names
        )
    except (AttributeError, OSError, TypeError):
        return None, None, None
    return parallel, number, count

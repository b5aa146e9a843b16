"""The CPU kernel: cpu.cpp, compiled when the package was installed, called with data pointers.

It runs on the OpenMP threads torch has already started, and on the instruction set torch has chosen
for this processor. Without a compiled library, or with one built from another cpu.cpp, ``why_not``
says so and the pure-torch kernel does the work.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from spikeguard.kernels.fused import Layer, Slopes, Wants
from spikeguard.kernels.layout import Layout, is_table
from spikeguard.kernels.reference import membrane_dtype

__all__ = ["BACKEND", "CPUBackend", "why_not"]

_HERE = Path(__file__).parent
_PRECISION = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2}
_SURROGATES: dict[str, tuple[int, str | None]] = {  # class -> its number in cpu.cpp, its parameter
    "Triangular": (0, "width"),
    "Rectangular": (1, "width"),
    "ATan": (2, "alpha"),
    "Sigmoid": (3, "alpha"),
    "Gaussian": (4, "sigma"),
    "SuperSpike": (5, "beta"),
    "StraightThrough": (6, None),
}
_LEVELS = {"AVX512": ("v4", "v3", "base"), "AVX2": ("v3", "base")}  # of torch's instruction sets


class _Side(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p)] + [
        (name, ctypes.c_int64) for name in ("per_step", "per_channel", "full")
    ]


class _Task(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("T", "S", "N", "C", "inner")),
        *((name, ctypes.c_void_p) for name in ("x", "scale", "shift")),
        ("decay", _Side),
        ("gate", _Side),
        ("noise", ctypes.c_void_p),
        ("v_th", ctypes.c_double),
        *((name, ctypes.c_int64) for name in ("soft", "detach", "surrogate")),
        ("p", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("spikes", "v", "d_spikes", "d_v", "dx")),
        ("dx_is_membrane", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("sums", "d_decay", "d_gate")),
        *((name, ctypes.c_void_p) for name in ("d_decay_full", "d_gate_full", "d_noise")),
    ]


class _Combine(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("steps", "N", "C", "inner")),
        *((name, ctypes.c_void_p) for name in ("g", "x", "dx", "a", "b", "c")),
    ]


class _Pool(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("parallel", "thread_number", "thread_count")),
        ("threads", ctypes.c_int64),
    ]


def why_not() -> str | None:
    """Say why the kernel cannot be used here; None if it can."""
    return _library()[1]


class CPUBackend:
    """The passes of ``spikeguard.kernels.fused.Backend`` in C++."""

    def supports(self, x: Tensor, surrogate: object) -> bool:
        """CPU tensors of float32, float64 or bfloat16; the seven surrogates of the package."""
        known = type(surrogate).__module__ == "spikeguard.neurons.surrogate"
        return known and x.device.type == "cpu" and x.dtype in _PRECISION

    def fire(self, layer: Layer, potentials: bool) -> tuple[Tensor, Tensor | None]:
        """Return spikes and potentials [T, *N], laid out in memory like x."""
        call = _Call(layer)
        spikes = call.empty(layer.rule.T, layer.x.dtype)
        v = call.empty(layer.rule.T, call.membrane) if potentials else None
        call.task.spikes, call.task.v = spikes.data_ptr(), _pointer(v)
        call.run("forward")
        return spikes, v

    def differentiate(
        self, layer: Layer, d_spikes: Tensor | None, d_v: Tensor | None, wants: Wants
    ) -> Slopes:
        """Run the recurrence again for the potentials, then backwards."""
        call, T = _Call(layer), layer.rule.T
        task, membrane = call.task, call.membrane
        task.d_spikes = _pointer(call.alike(d_spikes, layer.x.dtype))
        task.d_v = _pointer(call.alike(d_v, membrane))
        g = sums = noise = None
        if wants.x:
            g = call.empty(len(layer.x), membrane if wants.raw else layer.x.dtype)
            task.dx, task.dx_is_membrane = g.data_ptr(), int(wants.raw)
        if wants.sums:
            sums = torch.zeros(2, call.task.C, dtype=torch.float64)
            task.sums = sums.data_ptr()
        if wants.noise:
            noise = call.empty(T, membrane)
            task.d_noise = noise.data_ptr()
        decay = call.slope("decay", layer.decay) if wants.decay else None
        gate = call.slope("gate", layer.gate) if wants.gate and layer.gate is not None else None
        call.run("backward")
        return Slopes(g, sums, decay and decay(), gate and gate(), noise)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sum x and its square in double, in one pass."""
        layout = Layout.of(x)
        x = layout.dense(x)
        task = _Task(S=len(x), N=x[0].numel(), C=layout.C, inner=layout.inner, x=x.data_ptr())
        sums = torch.zeros(2, layout.C, dtype=torch.float64)
        task.sums = sums.data_ptr()
        _run("moments", task, x.dtype)
        mean, square = sums / (x.numel() // layout.C)
        return mean, (square - mean * mean).clamp_min_(0)

    def combine(self, g: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Return a g + b x + c; in the memory of ``g`` where the precision allows."""
        layout, membrane = Layout.of(x), membrane_dtype(x.dtype)
        x, g = layout.dense(x), layout.dense(g)
        a, b, c = (part.to(membrane).contiguous() for part in (a, b, c))
        out = g if g.dtype == x.dtype else torch.empty_like(x)
        task = _Combine(steps=len(x), N=x[0].numel(), C=layout.C, inner=layout.inner)
        task.g, task.x, task.dx = g.data_ptr(), x.data_ptr(), out.data_ptr()
        task.a, task.b, task.c = a.data_ptr(), b.data_ptr(), c.data_ptr()
        _run("combine", task, x.dtype)
        return out


BACKEND = CPUBackend()


class _Call:
    """A task for the library, and the tensors its pointers point into."""

    def __init__(self, layer: Layer):
        rule = layer.rule
        self.layout = Layout.of(layer.x)
        self.membrane = membrane_dtype(layer.x.dtype)
        self.precision = layer.x.dtype
        self._kept: list[Tensor] = []
        x = self._keep(self.layout.dense(layer.x))
        self.full = (rule.T, *x.shape[1:])
        number, parameter = _SURROGATES[type(rule.surrogate).__name__]
        self.task = _Task(
            T=rule.T,
            S=len(x),
            N=x[0].numel(),
            C=self.layout.C,
            inner=self.layout.inner,
            x=x.data_ptr(),
            v_th=rule.v_th,
            soft=int(rule.reset == "soft"),
            detach=int(rule.detach_reset),
            surrogate=number,
            p=0.0 if parameter is None else getattr(rule.surrogate, parameter),
        )
        if layer.scale is not None and layer.shift is not None:
            self.task.scale = self._keep(layer.scale.contiguous()).data_ptr()
            self.task.shift = self._keep(layer.shift.contiguous()).data_ptr()
        self.task.decay = self._side(layer.decay)
        if layer.gate is not None:
            self.task.gate = self._side(layer.gate)
        if layer.noise is not None:
            self.task.noise = _pointer(self.alike(layer.noise, self.membrane))

    def run(self, what: str) -> None:
        _run(what, self.task, self.precision)

    def empty(self, steps: int, dtype: torch.dtype) -> Tensor:
        """Return new memory for [steps, *N], laid out like x."""
        return self.layout.empty(self._kept[0], steps, dtype)

    def alike(self, x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Return a tensor [T, *N] laid out like x, in the given precision."""
        return None if x is None else self._keep(self.layout.dense(x.to(dtype)))

    def slope(self, name: str, side: Tensor) -> Callable[[], Tensor]:
        """Make room for the derivative by decay or gate; the result reads it after the run."""
        table = is_table(side)
        if table:
            room = torch.zeros(self.full[0], self.layout.C, dtype=torch.float64)
        else:
            room = self.empty(self.full[0], self.membrane)
        setattr(self.task, f"d_{name}" if table else f"d_{name}_full", room.data_ptr())

        def read() -> Tensor:
            found = room
            if table and len(self.full) >= 3:
                found = room.view(len(room), 1, -1, *[1] * (len(self.full) - 3))
            elif table:
                found = room.view(len(room), *[1] * (len(self.full) - 1))
            return found.sum_to_size(side.shape).to(side.dtype)

        return read

    def _side(self, side: Tensor) -> _Side:
        if side.ndim == 0:
            return _Side(self._keep(side.contiguous()).data_ptr(), 0, 0, 0)
        steps = len(side)
        if is_table(side):
            side = self._keep(side.contiguous())
            channels = side.numel() // max(1, steps)
            return _Side(side.data_ptr(), channels if steps > 1 else 0, int(channels > 1), 0)
        side = self._keep(self.layout.dense(side.expand(steps, *self.full[1:])))
        return _Side(side.data_ptr(), side[0].numel() if steps > 1 else 0, 0, 1)

    def _keep(self, x: Tensor) -> Tensor:
        self._kept.append(x)
        return x


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _run(what: str, task: _Task | _Combine, precision: torch.dtype) -> None:
    library, reason = _library()
    if library is None:
        raise RuntimeError(f"the CPU kernel cannot be used: {reason}.")
    pool = _Pool(*_openmp(), torch.get_num_threads())
    call = library[f"spikeguard_{what}"]
    call(ctypes.byref(task), ctypes.byref(pool), ctypes.c_int(_PRECISION[precision]))


@cache
def _library() -> tuple[ctypes.CDLL | None, str | None]:
    """Load the library for this processor; or None and the reason."""
    card = _HERE / "_cpu.json"
    if not card.exists():
        return None, "it was not compiled when the package was installed"
    built = json.loads(card.read_text())
    if not built["libraries"]:
        return None, built["reason"]
    if built["source"] != hashlib.sha256((_HERE / "cpu.cpp").read_bytes()).hexdigest():
        return None, "it was compiled from another cpu.cpp; install the package again"
    wanted = _LEVELS.get(torch.backends.cpu.get_cpu_capability(), ("base",))
    for level in wanted:
        if level in built["libraries"]:
            try:
                library = ctypes.CDLL(str(_HERE / built["libraries"][level]))
            except OSError as error:
                return None, f"its library cannot be loaded ({error})"
            layout = ctypes.sizeof(_Task) * 1000 + ctypes.sizeof(_Combine)
            assert library.spikeguard_layout() == layout, "cpu.py and cpu.cpp disagree"
            return library, None
    return None, "no library was compiled for this processor"


@cache
def _openmp() -> tuple[int | None, int | None, int | None]:
    """Find the OpenMP entry points of the runtime torch has loaded; Nones where there is none."""
    try:
        found = ctypes.CDLL(None)
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        parallel, number, count = (
            ctypes.cast(getattr(found, name), ctypes.c_void_p).value for name in names
        )
    except (AttributeError, OSError, TypeError):
        return None, None, None
    return parallel, number, count

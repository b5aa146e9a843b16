"""The CPU kernel: cpu.cpp, compiled at installation and called with data pointers.

It runs on torch's OpenMP threads, with the instruction set that torch selected for the processor.
If no library was compiled, or only one from other source files, ``why_not`` returns the reason and
the pure-torch kernel runs instead.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from spikeguard.kernels.cpu.library import PRECISION, Combine, Side, Task, call, pointer, why_not
from spikeguard.kernels.fused import Layer, Slopes, Wants
from spikeguard.kernels.layout import Layout, is_table
from spikeguard.kernels.reference import membrane_dtype
from spikeguard.kernels.surrogates import PARAMETER, compiled_as

__all__ = ["BACKEND", "CPUBackend", "side_of", "why_not"]

_NUMBER = {  # of each surrogate in surrogates.h
    "Triangular": 0,
    "Rectangular": 1,
    "ATan": 2,
    "Sigmoid": 3,
    "Gaussian": 4,
    "SuperSpike": 5,
    "StraightThrough": 6,
}


class CPUBackend:
    """The passes of ``spikeguard.kernels.fused.Backend`` in C++."""

    def supports(self, x: Tensor, surrogate: object) -> bool:
        """CPU tensors of float32, float64 or bfloat16; the seven surrogates of the package."""
        known = compiled_as(surrogate) is not None
        return known and x.device.type == "cpu" and x.dtype in PRECISION

    def fire(self, layer: Layer, potentials: bool) -> tuple[Tensor, Tensor | None]:
        """Return spikes, or their means, and potentials [T, *N], in the memory layout of x."""
        made = _Call(layer)
        spikes = made.empty(layer.rule.T, layer.x.dtype, layer.rule.window)
        v = made.empty(layer.rule.T, made.membrane) if potentials else None
        made.task.spikes, made.task.v = spikes.data_ptr(), pointer(v)
        made.run("forward")
        return spikes, v

    def differentiate(
        self, layer: Layer, d_spikes: Tensor | None, d_v: Tensor | None, wants: Wants
    ) -> Slopes:
        """Recompute the potentials, then run the recurrence backwards."""
        made, T = _Call(layer), layer.rule.T
        task, membrane = made.task, made.membrane
        if d_spikes is None and layer.rule.window is not None:  # the pooled pass reads it
            d_spikes = made.empty(T, layer.x.dtype, layer.rule.window).zero_()
        task.d_spikes = pointer(made.alike(d_spikes, layer.x.dtype))
        task.d_v = pointer(made.alike(d_v, membrane))
        g = sums = noise = None
        if wants.x:
            g = made.empty(len(layer.x), membrane if wants.raw else layer.x.dtype)
            task.dx, task.dx_is_membrane = g.data_ptr(), int(wants.raw)
        if wants.sums:
            sums = torch.zeros(2, made.task.C, dtype=torch.float64)
            task.sums = sums.data_ptr()
        if wants.noise:
            noise = made.empty(T, membrane)
            task.d_noise = noise.data_ptr()
        decay = made.slope("decay", layer.decay) if wants.decay else None
        gate = made.slope("gate", layer.gate) if wants.gate and layer.gate is not None else None
        made.run("backward")
        return Slopes(g, sums, decay and decay(), gate and gate(), noise)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sum x and its square in float64, in one pass."""
        layout = Layout.of(x)
        x = layout.dense(x)
        task = Task(S=len(x), N=x[0].numel(), C=layout.C, inner=layout.inner, x=x.data_ptr())
        sums = torch.zeros(2, layout.C, dtype=torch.float64)
        task.sums = sums.data_ptr()
        call("moments", task, x.dtype)
        mean, square = sums / (x.numel() // layout.C)
        return mean, (square - mean * mean).clamp_min_(0)

    def combine(self, g: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Return a g + b x + c; ``g`` is overwritten if its dtype is that of ``x``."""
        layout, membrane = Layout.of(x), membrane_dtype(x.dtype)
        x, g = layout.dense(x), layout.dense(g)
        a, b, c = (part.to(membrane).contiguous() for part in (a, b, c))
        out = g if g.dtype == x.dtype else torch.empty_like(x)
        task = Combine(steps=len(x), N=x[0].numel(), C=layout.C, inner=layout.inner)
        task.g, task.x, task.dx = g.data_ptr(), x.data_ptr(), out.data_ptr()
        task.a, task.b, task.c = a.data_ptr(), b.data_ptr(), c.data_ptr()
        call("combine", task, x.dtype)
        return out


BACKEND = CPUBackend()


class _Call:
    """A task for the library, and references to the tensors behind its pointers."""

    def __init__(self, layer: Layer):
        rule = layer.rule
        self.layout = Layout.of(layer.x)
        self.membrane = membrane_dtype(layer.x.dtype)
        self.precision = layer.x.dtype
        self._kept: list[Tensor] = []
        x = self._keep(self.layout.dense(layer.x))
        self.full = (rule.T, *x.shape[1:])
        name = compiled_as(rule.surrogate)
        assert name is not None
        parameter = PARAMETER[name]
        self.task = Task(
            T=rule.T,
            S=len(x),
            N=x[0].numel(),
            C=self.layout.C,
            inner=self.layout.inner,
            x=x.data_ptr(),
            v_th=rule.v_th,
            soft=int(rule.reset == "soft"),
            detach=int(rule.detach_reset),
            surrogate=_NUMBER[name],
            p=0.0 if parameter is None else getattr(rule.surrogate, parameter),
            smooth=int(rule.smooth),
        )
        if rule.window is not None:
            self.task.rows, self.task.columns = rule.window
            self.task.width = x.shape[-1]
        if layer.scale is not None and layer.shift is not None:
            self.task.scale = self._keep(layer.scale.contiguous()).data_ptr()
            self.task.shift = self._keep(layer.shift.contiguous()).data_ptr()
        self.task.decay = side_of(layer.decay, self.layout, self.full, self._keep)
        if layer.gate is not None:
            self.task.gate = side_of(layer.gate, self.layout, self.full, self._keep)
        if layer.noise is not None:
            self.task.noise = pointer(self.alike(layer.noise, self.membrane))

    def run(self, what: str) -> None:
        call(what, self.task, self.precision)

    def empty(
        self, steps: int, dtype: torch.dtype, window: tuple[int, int] | None = None
    ) -> Tensor:
        """Return an uninitialised [steps, *N], or means over a window, in the layout of x."""
        rows, columns = window or (1, 1)
        like = self._kept[0] if window is None else self._kept[0][..., ::rows, ::columns]
        return self.layout.empty(like, steps, dtype)

    def alike(self, x: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Return a tensor [T, *N] in the layout of x and the given dtype."""
        return None if x is None else self._keep(self.layout.dense(x.to(dtype)))

    def slope(self, name: str, side: Tensor) -> Callable[[], Tensor]:
        """Allocate the derivative for decay or gate; call the result after the run to read it."""
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

    def _keep(self, x: Tensor) -> Tensor:
        self._kept.append(x)
        return x


def side_of(
    side: Tensor, layout: Layout, full: tuple[int, ...], keep: Callable[[Tensor], Tensor]
) -> Side:
    """Describe a decay or gate of [T, *N] elements; ``keep`` receives the tensor it points to."""
    if side.ndim == 0:
        return Side(keep(side.contiguous()).data_ptr(), 0, 0, 0)
    steps = len(side)
    if is_table(side):
        side = keep(side.contiguous())
        channels = side.numel() // max(1, steps)
        return Side(side.data_ptr(), channels if steps > 1 else 0, int(channels > 1), 0)
    side = keep(layout.dense(side.expand(steps, *full[1:])))
    return Side(side.data_ptr(), side[0].numel() if steps > 1 else 0, 0, 1)

"""The Triton kernel for GPUs: batch normalisation and all T steps in one pass over memory.

Potentials stay in registers, so a program is unrolled over T; calls with more than ``LONGEST``
steps run on the pure-torch kernel. Threshold and surrogate are compile-time constants: a new value
costs a compilation. With ``TRITON_INTERPRET=1`` in the environment the same programs run on CPU
tensors, slowly; the tests use this on machines without a GPU. Not yet run on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spikeguard.kernels.fused import Layer, Slopes, Wants
from spikeguard.kernels.layout import Layout, is_table
from spikeguard.kernels.reference import membrane_dtype
from spikeguard.kernels.surrogates import PARAMETER, compiled_as

__all__ = ["BACKEND", "LONGEST", "TritonBackend", "why_not"]

LONGEST = 32  # steps whose potentials fit into a program's registers

_PRECISIONS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def why_not() -> str | None:
    """Return the reason why the kernel cannot run on this machine; None if it can."""
    return _reason(_interpreted())


@cache
def _reason(interpreted: bool) -> str | None:
    if find_spec("triton") is None:
        return "Triton is not installed"
    if interpreted:
        return None
    if not torch.cuda.is_available():
        return "torch sees no CUDA device"
    if torch.version.hip is None and torch.cuda.get_device_capability() < (7, 0):
        return "Triton needs a GPU of compute capability 7.0 or more"
    return None


class TritonBackend:
    """The passes of ``spikeguard.kernels.fused.Backend`` in Triton."""

    def supports(self, x: Tensor, surrogate: object) -> bool:
        """CUDA tensors of float16, bfloat16, float32 or float64; the package's surrogates."""
        known = compiled_as(surrogate) is not None
        here = x.is_cuda or (_interpreted() and x.device.type == "cpu")
        small = len(x) <= LONGEST and x[0].numel() < 2**31 - 4096  # offsets are 32-bit numbers
        return known and here and small and x.dtype in _PRECISIONS

    def fire(self, layer: Layer, potentials: bool) -> tuple[Tensor, Tensor | None]:
        """Return spikes and potentials [T, *N], in the memory layout of x."""
        call, T = _Call(layer), layer.rule.T
        spikes = call.empty(T, layer.x.dtype)
        v = call.empty(T, call.membrane) if potentials else None
        _launch("fire", call.tiles, *call.inputs, spikes, v, *call.sizes, **call.settings)
        return spikes, v

    def differentiate(
        self, layer: Layer, d_spikes: Tensor | None, d_v: Tensor | None, wants: Wants
    ) -> Slopes:
        """Recompute the potentials, then run the recurrence backwards."""
        call, rule = _Call(layer), layer.rule
        g = sums = noise = None
        if wants.x:
            g = call.empty(len(layer.x), call.membrane if wants.raw else layer.x.dtype)
        if wants.sums:
            sums = call.tiles.table(2)
        if wants.noise:
            noise = call.empty(rule.T, call.membrane)
        decay = call.slope(call.decay) if wants.decay else None
        gate = call.slope(call.gate) if wants.gate else None
        surrogate = compiled_as(rule.surrogate)
        assert surrogate is not None
        parameter = PARAMETER[surrogate]
        _launch(
            "differentiate",
            call.tiles,
            *call.inputs,
            None if d_spikes is None else call.layout.dense(d_spikes.to(layer.x.dtype)),
            None if d_v is None else call.layout.dense(d_v.to(call.membrane)),
            *(g, sums, decay, gate, noise),
            *call.sizes,
            **call.settings,
            DETACH=rule.detach_reset,
            SURROGATE=surrogate,
            P=1.0 if parameter is None else float(getattr(rule.surrogate, parameter)),
            RAW=wants.raw,
        )
        return Slopes(
            g,
            None if sums is None else sums.sum(0),
            None if decay is None else call.read(decay, call.decay, layer.decay),
            None if gate is None or layer.gate is None else call.read(gate, call.gate, layer.gate),
            noise,
        )

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sum x and its square in float64, in one pass."""
        layout = Layout.of(x)
        x, tiles = layout.dense(x), _Tiles.of(x, layout)
        sums = tiles.table(2)
        _launch("moments", tiles, x, sums, len(x), *tiles.sizes)
        mean, square = sums.sum(0) / (x.numel() // layout.C)
        return mean, (square - mean * mean).clamp_min_(0)

    def combine(self, g: Tensor, x: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        """Return a g + b x + c; ``g`` is overwritten if its dtype is that of ``x``."""
        layout, membrane = Layout.of(x), membrane_dtype(x.dtype)
        x, g = layout.dense(x), layout.dense(g)
        out = g if g.dtype == x.dtype else torch.empty_like(x)
        affine = [part.to(membrane).contiguous() for part in (a, b, c)]
        tiles = _Tiles.of(x, layout)
        _launch("combine", tiles, g, x, out, *affine, len(x), *tiles.sizes)
        return out


BACKEND = TritonBackend()


class _Tiles(NamedTuple):
    """The division of the N elements of a step into tiles of R positions by K channels."""

    N: int
    C: int
    inner: int
    R: int
    K: int
    device: torch.device

    @classmethod
    def of(cls, x: Tensor, layout: Layout, size: int = 512) -> _Tiles:
        """Divide a step of ``x`` [S, *N] into tiles of ``size`` elements, a power of two."""
        N, C = x[0].numel(), max(1, layout.C)
        inner = max(1, N if C == 1 else layout.inner)
        K = min(32, 1 << (C - 1).bit_length()) if inner == 1 else 1
        return cls(N, C, inner, size // K, K, x.device)

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """N, M (positions of a channel), C and inner."""
        return self.N, self.N // self.C, self.C, self.inner

    @property
    def grid(self) -> tuple[int, int]:
        """Number of programs along positions and along channels."""
        return -(-(self.N // self.C) // self.R), -(-self.C // self.K)

    def table(self, rows: int) -> Tensor:
        """Return an uninitialised table for the sums that every program writes per channel."""
        shape = (self.grid[0], rows, self.C)
        return torch.empty(shape, dtype=torch.float64, device=self.device)


class _Side(NamedTuple):
    kind: str  # "none", "shared", "channel" or "full"
    data: Tensor | None
    step: int  # elements from one step to the next; 0 if all steps share one value


class _Call:
    """Arguments of the programs for one layer: dense tensors, sizes and compile-time constants."""

    def __init__(self, layer: Layer):
        rule, x = layer.rule, layer.x
        self.layout, self.membrane = Layout.of(x), membrane_dtype(x.dtype)
        self.x = self.layout.dense(x)
        self.decay, self.gate = self._side(layer.decay), self._side(layer.gate)
        per_channel = layer.scale is not None or "channel" in (self.decay.kind, self.gate.kind)
        size = 512 if rule.T <= 4 else 256 if rule.T <= 8 else 128  # potentials fit the registers
        self.tiles = _Tiles.of(self.x, self.layout if per_channel else Layout(), size)
        self.inputs = (
            self.x,
            None if layer.scale is None else layer.scale.contiguous(),
            None if layer.shift is None else layer.shift.contiguous(),
            *(self.decay.data, self.gate.data),
            None if layer.noise is None else self.layout.dense(layer.noise.to(self.membrane)),
        )
        self.sizes = (self.decay.step, self.gate.step, *self.tiles.sizes)
        self.settings: dict[str, Any] = {
            "T": rule.T,
            "ONE": len(x) == 1 and rule.T > 1,
            "V_TH": rule.v_th,
            "RESET": rule.reset,
            "DECAY": self.decay.kind,
            "GATE": self.gate.kind,
            "MEMBRANE": _language(self.membrane),
        }
        self.T = rule.T

    def empty(self, steps: int, dtype: torch.dtype) -> Tensor:
        """Return an uninitialised [steps, *N] in the layout of x."""
        return self.layout.empty(self.x, steps, dtype)

    def slope(self, side: _Side) -> Tensor | None:
        """Allocate the derivative with respect to decay or gate."""
        if side.kind == "none":
            return None
        if side.kind == "full":
            return self.empty(self.T, self.membrane)
        return self.tiles.table(self.T)

    def read(self, found: Tensor, side: _Side, shaped_like: Tensor) -> Tensor:
        """Sum a derivative to the shape of the decay or gate."""
        if side.kind != "full":
            channels = (1, self.tiles.C) if self.x.ndim >= 3 else ()
            rest = [1] * (self.x.ndim - 1 - len(channels))
            found = found.sum(0).view(self.T, *channels, *rest)
        return found.sum_to_size(shaped_like.shape).to(shaped_like.dtype)

    def _side(self, side: Tensor | None) -> _Side:
        if side is None:
            return _Side("none", None, 0)
        if side.ndim == 0:
            return _Side("shared", side, 0)
        if is_table(side):
            side = side.contiguous()
            channels = side.numel() // len(side)
            kind = "channel" if channels > 1 else "shared"
        else:
            side = self.layout.dense(side.expand(len(side), *self.x.shape[1:]))
            channels, kind = side[0].numel(), "full"
        return _Side(kind, side, channels if len(side) > 1 else 0)


def _launch(what: str, tiles: _Tiles, *arguments: object, **settings: object) -> None:
    """Run a program on every tile.

    Without ``enable_fp_fusion=False`` the compiler may contract a product and a sum into a fused
    multiply-add. The potentials could then differ from the reference in the last bit, and the
    spikes of neurons at the threshold with them.
    """
    if tiles.N == 0:
        return
    from spikeguard.kernels.triton import programs

    program: Callable[..., object] = getattr(programs, what)[tiles.grid]
    with torch.cuda.device_of(arguments[0]):  # type: ignore[no-untyped-call]
        program(*arguments, **settings, R=tiles.R, K=tiles.K, num_warps=4, enable_fp_fusion=False)


def _language(dtype: torch.dtype) -> object:
    """Return Triton's name for the dtype of the membrane."""
    import triton.language as tl

    return tl.float64 if dtype == torch.float64 else tl.float32


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")

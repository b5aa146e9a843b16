"""The Triton programs that backend.py launches; reference.py is the definition.

A program runs a tile of R positions by K channels of a layer through all T steps, so that the
potentials stay in registers. A column of the tile belongs to one channel, so a sum over a channel
is a sum over rows: every program writes its sums into a table, and the table is summed afterwards
in a fixed order. Optional arguments may be None. Names in capitals are compile-time constants; one
program is compiled for each combination of them.
"""

# Triton compiles this code: parameters have no static types, and a branch is not an expression.
# ruff: noqa: ANN001, ANN201, ANN202, D103, RUF005, SIM108
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# mypy: disable-error-code="assignment, misc, var-annotated"

from __future__ import annotations

import math

import triton
import triton.language as tl

__all__ = ["combine", "differentiate", "fire", "moments"]

_HALF_PI = tl.constexpr(math.pi / 2)
_BELL = tl.constexpr(1 / math.sqrt(2 * math.pi))


@triton.jit
def fire(
    x,
    scale,
    shift,
    decay,
    gate,
    noise,
    spikes,
    v,
    decay_step,
    gate_step,
    N,
    M,
    C,
    inner,
    T: tl.constexpr,
    ONE: tl.constexpr,  # x has one step, which is repeated T times
    V_TH: tl.constexpr,
    RESET: tl.constexpr,
    DECAY: tl.constexpr,  # "shared", "channel" or "full"
    GATE: tl.constexpr,  # as DECAY, or "none"
    MEMBRANE: tl.constexpr,
    R: tl.constexpr,
    K: tl.constexpr,
):
    at, channel, inside = _tile(M, C, inner, R, K)
    step = tl.cast(N, tl.int64)
    a, b = _affine(scale, shift, channel, C, MEMBRANE)
    u = tl.zeros([R, K], MEMBRANE)
    for t in tl.static_range(T):
        if t == 0 or not ONE:
            current = _current(x + t * step + at, inside, scale, a, b, MEMBRANE)
        drive = current
        if GATE != "none":
            drive = _side(gate, t, gate_step, at, channel, inside, C, GATE) * drive
        if t > 0:
            drive = _side(decay, t, decay_step, at, channel, inside, C, DECAY) * u + drive
        if noise is not None:
            drive = drive + tl.load(noise + t * step + at, mask=inside, other=0.0)
        tl.store(spikes + t * step + at, tl.where(drive >= V_TH, 1.0, 0.0), mask=inside)
        if v is not None:
            tl.store(v + t * step + at, drive, mask=inside)
        u = _reset(drive, V_TH, RESET)


@triton.jit
def differentiate(
    x,
    scale,
    shift,
    decay,
    gate,
    noise,
    d_spikes,
    d_v,
    dx,
    sums,  # [programs, 2, C]: of g and of g x, g = dL/d current
    d_decay,  # [programs, T, C]; where decay is full, [T, N]
    d_gate,  # as d_decay
    d_noise,
    decay_step,
    gate_step,
    N,
    M,
    C,
    inner,
    T: tl.constexpr,
    ONE: tl.constexpr,
    V_TH: tl.constexpr,
    RESET: tl.constexpr,
    DETACH: tl.constexpr,
    SURROGATE: tl.constexpr,
    P: tl.constexpr,  # its parameter
    RAW: tl.constexpr,  # dx is g itself
    DECAY: tl.constexpr,
    GATE: tl.constexpr,
    MEMBRANE: tl.constexpr,
    R: tl.constexpr,
    K: tl.constexpr,
):
    at, channel, inside = _tile(M, C, inner, R, K)
    step = tl.cast(N, tl.int64)
    program = tl.program_id(0).to(tl.int64)
    a, b = _affine(scale, shift, channel, C, MEMBRANE)

    potentials = ()
    u = tl.zeros([R, K], MEMBRANE)
    for t in tl.static_range(T):
        if t == 0 or not ONE:
            current = _current(x + t * step + at, inside, scale, a, b, MEMBRANE)
        drive = current
        if GATE != "none":
            drive = _side(gate, t, gate_step, at, channel, inside, C, GATE) * drive
        if t > 0:
            drive = _side(decay, t, decay_step, at, channel, inside, C, DECAY) * u + drive
        if noise is not None:
            drive = drive + tl.load(noise + t * step + at, mask=inside, other=0.0)
        potentials = potentials + (drive,)
        u = _reset(drive, V_TH, RESET)

    # dv is the total dL/dv[t]: direct, through the spike s[t] and through u[t].
    du = tl.zeros([R, K], MEMBRANE)
    total = tl.zeros([R, K], MEMBRANE)
    of_g = tl.zeros([R, K], tl.float64)
    of_gx = tl.zeros([R, K], tl.float64)
    for t in tl.static_range(T - 1, -1, -1):
        v = potentials[t]
        dv = tl.zeros([R, K], MEMBRANE)
        if d_spikes is not None:
            dv = tl.load(d_spikes + t * step + at, mask=inside, other=0.0).to(MEMBRANE)
        if t < T - 1 and not DETACH:
            if RESET == "hard":
                dv = dv - du * v
            else:
                dv = dv - du * V_TH
        dv = dv * _slope(v - V_TH, SURROGATE, P)
        if d_v is not None:
            dv = dv + tl.load(d_v + t * step + at, mask=inside, other=0.0)
        if t < T - 1:
            if RESET == "hard":
                dv = dv + du * tl.where(v >= V_TH, 0.0, 1.0)
            else:
                dv = dv + du
        if d_noise is not None:
            tl.store(d_noise + t * step + at, dv, mask=inside)
        if d_gate is not None:
            current = _current(x + (0 if ONE else t) * step + at, inside, scale, a, b, MEMBRANE)
            if GATE == "full":
                tl.store(d_gate + t * step + at, dv * current, mask=inside)
            else:
                _write_sum(d_gate, program * T + t, dv, current, channel, C)
        if d_decay is not None:
            before = tl.zeros([R, K], MEMBRANE)
            if t > 0:
                before = _reset(potentials[t - 1], V_TH, RESET)
            if DECAY == "full":
                tl.store(d_decay + t * step + at, dv * before, mask=inside)
            else:
                _write_sum(d_decay, program * T + t, dv, before, channel, C)
        if t > 0:
            du = dv * _side(decay, t, decay_step, at, channel, inside, C, DECAY)
        if GATE != "none":
            dv = dv * _side(gate, t, gate_step, at, channel, inside, C, GATE)
        if ONE:
            total += dv
        else:
            total = dv
        if t == 0 or not ONE:  # total is g of a stored step
            if sums is not None:
                stored = tl.load(x + t * step + at, mask=inside, other=0.0).to(tl.float64)
                of_g += total.to(tl.float64)
                of_gx += total.to(tl.float64) * stored
            if dx is not None:
                if scale is not None and not RAW:
                    tl.store(dx + t * step + at, total * a, mask=inside)
                else:
                    tl.store(dx + t * step + at, total, mask=inside)
    if sums is not None:
        _write_sum(sums, program * 2, of_g, 1.0, channel, C)
        _write_sum(sums, program * 2 + 1, of_gx, 1.0, channel, C)


@triton.jit
def moments(x, sums, S, N, M, C, inner, R: tl.constexpr, K: tl.constexpr):
    """Sums of x and of its square [programs, 2, C], in float64, precise enough for the variance."""
    at, channel, inside = _tile(M, C, inner, R, K)
    step = tl.cast(N, tl.int64)
    program = tl.program_id(0).to(tl.int64)
    of_x = tl.zeros([R, K], tl.float64)
    of_square = tl.zeros([R, K], tl.float64)
    for t in range(S):
        value = tl.load(x + t * step + at, mask=inside, other=0.0).to(tl.float64)
        of_x += value
        of_square += value * value
    _write_sum(sums, program * 2, of_x, 1.0, channel, C)
    _write_sum(sums, program * 2 + 1, of_square, 1.0, channel, C)


@triton.jit
def combine(g, x, out, a, b, c, S, N, M, C, inner, R: tl.constexpr, K: tl.constexpr):
    """Write a g + (b x + c), channel by channel; out may be g."""
    at, channel, inside = _tile(M, C, inner, R, K)
    step = tl.cast(N, tl.int64)
    known = channel < C
    by_g = tl.load(a + channel, mask=known, other=0.0)
    by_x = tl.load(b + channel, mask=known, other=0.0)
    level = tl.load(c + channel, mask=known, other=0.0)
    for t in range(S):
        slope = tl.load(g + t * step + at, mask=inside, other=0.0)
        value = tl.load(x + t * step + at, mask=inside, other=0.0).to(slope.dtype)
        tl.store(out + t * step + at, by_g * slope + (by_x * value + level), mask=inside)


@triton.jit
def _tile(M, C, inner, R: tl.constexpr, K: tl.constexpr):
    """Return the tile's offsets within a step, its channels, and a mask of existing elements.

    M is the number of positions of a channel.
    """
    row = tl.program_id(0) * R + tl.arange(0, R)[:, None]
    channel = tl.program_id(1) * K + tl.arange(0, K)[None, :]
    at = row // inner * (C * inner) + channel * inner + row % inner
    return at, channel, (row < M) & (channel < C)


@triton.jit
def _affine(scale, shift, channel, C, MEMBRANE: tl.constexpr):
    if scale is None:
        a = tl.full([1, 1], 1.0, MEMBRANE)
        b = tl.full([1, 1], 0.0, MEMBRANE)
    else:
        a = tl.load(scale + channel, mask=channel < C, other=0.0)
        b = tl.load(shift + channel, mask=channel < C, other=0.0)
    return a, b


@triton.jit
def _current(place, inside, scale, a, b, MEMBRANE: tl.constexpr):
    value = tl.load(place, mask=inside, other=0.0).to(MEMBRANE)
    if scale is not None:
        value = a * value + b
    return value


@triton.jit
def _side(data, t, step, at, channel, inside, C, KIND: tl.constexpr):
    """Return decay or gate at step t: one value, one per channel, or one per element."""
    data += t * tl.cast(step, tl.int64)
    if KIND == "full":
        value = tl.load(data + at, mask=inside, other=0.0)
    elif KIND == "channel":
        value = tl.load(data + channel, mask=channel < C, other=0.0)
    else:
        value = tl.load(data)
    return value


@triton.jit
def _reset(v, V_TH: tl.constexpr, RESET: tl.constexpr):
    if RESET == "hard":
        u = v * tl.where(v >= V_TH, 0.0, 1.0)
    else:
        u = tl.where(v >= V_TH, v - V_TH, v)
    return u


@triton.jit
def _write_sum(table, row, a, b, channel, C):
    total = tl.sum(a.to(tl.float64) * b, axis=0)[None, :]
    tl.store(table + row * C + channel, total, mask=channel < C)


@triton.jit
def _slope(x, SURROGATE: tl.constexpr, P: tl.constexpr):
    """Return h(x) of a surrogate of the package, x = v - v_th."""
    if SURROGATE == "Triangular":
        h = tl.maximum(P - tl.abs(x), 0.0) * (1 / (P * P))
    elif SURROGATE == "Rectangular":
        h = tl.where(tl.abs(x) <= P, 1.0, 0.0).to(x.dtype) * (0.5 / P)
    elif SURROGATE == "ATan":
        z = (_HALF_PI * P) * x
        h = (P / 2) / (1 + z * z)
    elif SURROGATE == "Sigmoid":
        s = 1 / (1 + tl.exp(-(P * x)))
        h = P * s * (1 - s)
    elif SURROGATE == "Gaussian":
        z = x / P
        h = (_BELL / P) * tl.exp(-0.5 * (z * z))
    elif SURROGATE == "SuperSpike":
        z = 1 + P * tl.abs(x)
        h = (P / 2) / (z * z)
    else:
        tl.static_assert(SURROGATE == "StraightThrough")
        h = tl.full(x.shape, 1.0, x.dtype)
    return h

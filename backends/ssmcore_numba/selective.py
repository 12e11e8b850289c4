"""The selective scan on the CPU: blocks of channels in parallel, chunks of time, state by state.

A block goes through its sequence chunk by chunk. Within a chunk each of the N states runs alone,
so that what its loop touches (one row of states, tiles of delta, delta u and y) stays in the
first cache. States are carried with a correction, so that they do not drift.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from ssmcore_numba.fastmath import add_in_any_order, advance, exp_parts, fma

__all__ = ["STEPS", "WIDTH", "selective_scan", "width_of"]

Array = Any
STEPS = 32
"""Steps of a chunk."""
WIDTH = 32
"""Channels of a block."""
LANES = 8


def width_of(H: int) -> int:
    """Return the width of a block of channels, filled up to whole vectors."""
    return min(WIDTH, -(-H // LANES) * LANES)


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None,
    start: Array,
    keep: Array | None,
    checkpoints: bool,
) -> tuple[Array, Array, Array]:
    """Return y, the last state and the states before every chunk of ``STEPS`` steps.

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t.

    Parameters
    ----------
    u, delta : (R, L, H), float32 or float64 as all others; any strides
    A : (H, N)
    B, C : (R, L, N)
    D : (H,) or None
    start : (R, H, N)
    keep : (R, L) bool, or None
        False: the state restarts from zero before that step.
    checkpoints : bool
        Whether to return the states that the derivative asks for, (R, ceil(L / STEPS), N, H);
        their second axis is empty otherwise.
    """
    R, L, H = u.shape
    N = A.shape[1]
    y = np.empty((R, L, H), u.dtype)
    last = np.empty((R, H, N), u.dtype)
    chunks = -(-L // STEPS) if checkpoints else 0
    saved = np.empty((R, chunks, N, H), u.dtype)
    _rows(u, delta, A, B, C, *optional(D, keep, u.dtype), start, width_of(H), y, last, saved)
    return y, last, saved


def optional(D: Array | None, keep: Array | None, dtype: Any) -> tuple[Array, Array]:
    """Return D and keep, empty arrays for None."""
    return (
        np.empty(0, dtype) if D is None else D,
        np.empty((0, 0), np.bool_) if keep is None else keep,
    )


@njit(cache=True, parallel=True, error_model="numpy")  # type: ignore[untyped-decorator]
def _rows(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    keep: Array,
    start: Array,
    width: int,
    y: Array,
    last: Array,
    saved: Array,
) -> None:
    blocks = -(-u.shape[2] // width)
    for job in prange(u.shape[0] * blocks):
        i = job // blocks
        k = job % blocks * width
        _block(i, k, width, u, delta, A, B, C, D, keep, start, y, last, saved)


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _block(
    i: int,
    lo: int,
    width: int,
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    keep: Array,
    start: Array,
    y: Array,
    last: Array,
    saved: Array,
) -> None:
    """Run row ``i`` of channels ``lo`` to ``lo + width``."""
    L, H = u.shape[1:]
    N = A.shape[1]
    W = min(width, H - lo)
    state = np.zeros((5, N, width), u.dtype)
    poles, h, c, h_before, c_before = state[0], state[1], state[2], state[3], state[4]
    for k in range(W):
        for n in range(N):
            poles[n, k] = A[lo + k, n]
            h[n, k] = start[i, lo + k, n]
    tiles = np.zeros((3, STEPS, width), u.dtype)
    dt, du, out = tiles[0], tiles[1], tiles[2]
    for first in range(0, L, STEPS):
        steps = min(STEPS, L - first)
        if saved.shape[1]:
            for n in range(N):
                for k in range(W):
                    saved[i, first // STEPS, n, lo + k] = h[n, k]
        copy(h, h_before)
        copy(c, c_before)
        load(u, delta, D, i, first, lo, steps, W, dt, du, out)
        _chunk(dt, du, poles, B, C, keep, i, first, steps, h, c, out)
        if not _store(out, y, i, first, lo, steps, W):
            copy(h_before, h)
            copy(c_before, c)
            load(u, delta, D, i, first, lo, steps, W, dt, du, out)
            _plain_chunk(dt, du, poles, B, C, keep, i, first, steps, h, c, out)
            _store(out, y, i, first, lo, steps, W)
    for k in range(W):
        for n in range(N):
            last[i, lo + k, n] = h[n, k]


@njit  # type: ignore[untyped-decorator]
def copy(x: Array, out: Array) -> None:
    """Copy a tile."""
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[n, k] = x[n, k]


@njit  # type: ignore[untyped-decorator]
def load(
    u: Array,
    delta: Array,
    D: Array,
    i: int,
    first: int,
    lo: int,
    steps: int,
    W: int,
    dt: Array,
    du: Array,
    out: Array,
) -> None:
    """Fill tiles with delta, delta u and D u (zero without D)."""
    for t in range(steps):
        u_t, delta_t = u[i, first + t, lo : lo + W], delta[i, first + t, lo : lo + W]
        dt_t, du_t, out_t = dt[t], du[t], out[t]
        for k in range(W):
            dt_t[k] = delta_t[k]
            du_t[k] = delta_t[k] * u_t[k]
        if D.shape[0]:
            D_t = D[lo : lo + W]
            for k in range(W):
                out_t[k] = D_t[k] * u_t[k]
        else:
            for k in range(W):
                out_t[k] = 0


@njit  # type: ignore[untyped-decorator]
def _store(x: Array, out: Array, i: int, first: int, lo: int, steps: int, W: int) -> bool:
    """Copy a tile into ``out`` and tell whether it is finite."""
    worst = x.dtype.type(0)
    for t in range(steps):
        x_t, out_t = x[t], out[i, first + t, lo : lo + W]
        for k in range(W):
            out_t[k] = x_t[k]
            worst = add_in_any_order(worst, x_t[k] * x.dtype.type(0))
    return worst == 0


@njit  # type: ignore[untyped-decorator]
def _chunk(
    dt: Array,
    du: Array,
    poles: Array,
    B: Array,
    C: Array,
    keep: Array,
    i: int,
    first: int,
    steps: int,
    h: Array,
    c: Array,
    y: Array,
) -> None:
    """Add C h to y (T, W) and leave the last state in h (N, W); an infinite state becomes NaN."""
    width = y.shape[1]
    for n in range(h.shape[0]):
        pole, state, lost = poles[n], h[n], c[n]
        for t in range(steps):
            if keep.shape[0] and not keep[i, first + t]:
                for k in range(width):
                    state[k] = 0
                    lost[k] = 0
            dt_t, du_t, y_t = dt[t], du[t], y[t]
            b, read = B[i, first + t, n], C[i, first + t, n]
            for k in range(width):
                s, m = exp_parts(dt_t[k] * pole[k])
                v, lost[k] = advance(s, m, state[k], du_t[k] * b, lost[k])
                state[k] = v
                y_t[k] = fma(read, v, y_t[k])


@njit(error_model="numpy")  # type: ignore[untyped-decorator]
def _plain_chunk(
    dt: Array,
    du: Array,
    poles: Array,
    B: Array,
    C: Array,
    keep: Array,
    i: int,
    first: int,
    steps: int,
    h: Array,
    c: Array,
    y: Array,
) -> None:
    """As ``_chunk``, slowly and by the rules of IEEE: an infinite state stays infinite."""
    zero = c.dtype.type(0)
    for t in range(steps):
        restart = keep.shape[0] > 0 and not keep[i, first + t]
        b, read = B[i, first + t], C[i, first + t]
        for n in range(h.shape[0]):
            for k in range(y.shape[1]):
                state = zero if restart else h[n, k]
                w = du[t, k] * b[n] + (zero if restart else c[n, k])
                a = np.exp(dt[t, k] * poles[n, k])
                v = a * state + w
                lost = fma(a, state, -v) + w
                h[n, k] = v
                c[n, k] = lost if np.isfinite(lost) else zero
                y[t, k] = fma(read[n], v, y[t, k])

"""The selective scan on the CPU: blocks of channels in parallel, chunks of time, state by state.

A block goes through its sequence chunk by chunk. Within a chunk each of the N states runs alone,
so that what its loop touches (one row of states, tiles of delta, delta u and y) stays in the
first cache. States are carried with a correction, so that they do not drift.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from ssmcore_numba._jobs import kernel, read_only, run
from ssmcore_numba.fastmath import (
    LOG2E,
    add_in_any_order,
    advance,
    any_exp2,
    exp2,
    fma,
    largest_exponent,
    widest_vectors,
)

# With fastmath.py of 48122d6f.
__all__ = ["LANES", "STEPS", "inputs", "largest_step", "selective_scan"]

Array = Any
STEPS = 32
"""Steps of a chunk."""
LANES = 8
"""Blocks have a multiple of this width."""
WIDEST, NARROWEST = 128, 16


def _width(R: int, H: int, threads: int) -> int:
    """Return how many channels a block has: many, but no fewer blocks than threads if possible."""
    width = WIDEST
    while width > NARROWEST and R * -(-H // width) < 2 * threads:
        width //= 2
    return min(width, -(-H // LANES) * LANES)


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
    *,
    threads: int,
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
    threads : int
        Up to so many; the result is the same bit for bit.
    """
    R, L, H = u.shape
    N = A.shape[1]
    y = np.empty((R, L, H), u.dtype)
    last = np.empty((R, H, N), u.dtype)
    saved = np.empty((R, -(-L // STEPS) if checkpoints else 0, N, H), u.dtype)
    given = inputs(u, delta, A, B, C, D, start, keep)
    width = _width(R, H, threads)
    run(_rows, R * -(-H // width), threads, *given, width, y, last, saved)
    return y, last, saved


def inputs(*given: Array) -> list[Array]:
    """Return (u, delta, A, B, C, D, start, keep) as the kernels take them; None becomes empty."""
    u, delta, A, B, C, D, start, keep = given
    D = np.empty(0, A.dtype) if D is None else D
    keep = np.empty((0, 0), np.bool_) if keep is None else keep
    return [read_only(x) for x in (u, delta, A, B, C, D, start, keep)]


@kernel
def _rows(
    job: int,
    end: int,
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    start: Array,
    keep: Array,
    width: int,
    y: Array,
    last: Array,
    saved: Array,
) -> None:
    blocks = -(-u.shape[2] // width)
    for at in range(job, end):
        i = at // blocks
        k = at % blocks * width
        _block(i, k, width, u, delta, A, B, C, D, start, keep, y, last, saved)


@njit(error_model="numpy")
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
    start: Array,
    keep: Array,
    y: Array,
    last: Array,
    saved: Array,
) -> None:
    """Run row ``i`` of channels ``lo`` to ``lo + width``."""
    widest_vectors()
    L, H = u.shape[1:]
    N = A.shape[1]
    W = min(width, H - lo)
    state = np.zeros((5, N, width), u.dtype)
    poles, h, c, h_before, c_before = state[0], state[1], state[2], state[3], state[4]
    for k in range(W):
        for n in range(N):
            poles[n, k] = A[lo + k, n] * u.dtype.type(LOG2E)
            h[n, k] = start[i, lo + k, n]
    most = largest_step(poles)
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
        if load(u, delta, D, i, first, lo, steps, W, most, dt, du, out):
            _chunk(exp2, dt, du, poles, B, C, keep, i, first, steps, h, c, out)
        else:
            _chunk(any_exp2, dt, du, poles, B, C, keep, i, first, steps, h, c, out)
        if not _store(out, y, i, first, lo, steps, W):
            copy(h_before, h)
            copy(c_before, c)
            load(u, delta, D, i, first, lo, steps, W, most, dt, du, out)
            _plain_chunk(dt, du, poles, B, C, keep, i, first, steps, h, c, out)
            _store(out, y, i, first, lo, steps, W)
    for k in range(W):
        for n in range(N):
            last[i, lo + k, n] = h[n, k]


@njit
def copy(x: Array, out: Array) -> None:
    """Copy a tile."""
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            out[n, k] = x[n, k]


@njit(error_model="numpy")
def largest_step(poles: Array) -> Any:
    """Return up to which |delta| every delta times pole is one that ``exp2`` takes."""
    worst = 0.0
    for n in range(poles.shape[0]):
        for k in range(poles.shape[1]):
            worst = max(worst, abs(poles[n, k])) if poles[n, k] == poles[n, k] else np.inf
    return poles.dtype.type(largest_exponent(poles) / worst)


@njit
def load(
    u: Array,
    delta: Array,
    D: Array,
    i: int,
    first: int,
    lo: int,
    steps: int,
    W: int,
    most: float,
    dt: Array,
    du: Array,
    out: Array,
) -> bool:
    """Fill tiles with delta, delta u and D u (zero without D); tell whether all |delta| < most."""
    none, one = u.dtype.type(0), u.dtype.type(1)
    beyond = none
    for t in range(steps):
        u_t, delta_t = u[i, first + t, lo : lo + W], delta[i, first + t, lo : lo + W]
        dt_t, du_t, out_t = dt[t], du[t], out[t]
        for k in range(W):
            dt_t[k] = delta_t[k]
            du_t[k] = delta_t[k] * u_t[k]
            beyond = add_in_any_order(beyond, none if abs(delta_t[k]) < most else one)
        if D.shape[0]:
            D_t = D[lo : lo + W]
            for k in range(W):
                out_t[k] = D_t[k] * u_t[k]
        else:
            for k in range(W):
                out_t[k] = 0
    return bool(beyond == 0)


@njit
def _store(x: Array, out: Array, i: int, first: int, lo: int, steps: int, W: int) -> bool:
    """Copy a tile into ``out`` and tell whether it is finite."""
    worst = x.dtype.type(0)
    for t in range(steps):
        x_t, out_t = x[t], out[i, first + t, lo : lo + W]
        for k in range(W):
            out_t[k] = x_t[k]
            worst = add_in_any_order(worst, x_t[k] * x.dtype.type(0))
    return bool(worst == 0)


@njit
def _chunk(
    power: Any,
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
    widest_vectors()
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
                s, f, q = power(dt_t[k] * pole[k])
                v, lost[k] = advance(s, f, q, state[k], fma(du_t[k], b, lost[k]))
                state[k] = v
                y_t[k] = fma(read, v, y_t[k])


@njit(error_model="numpy")
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
                a = np.exp2(dt[t, k] * poles[n, k])
                v = a * state + w
                lost = fma(a, state, -v) + w
                h[n, k] = v
                c[n, k] = lost if np.isfinite(lost) else zero
                y[t, k] = fma(read[n], v, y[t, k])

"""The derivative of the selective scan on the CPU.

The chunks of ``selective`` in reverse: from the state before a chunk its steps are run again, and
then back, each of the N states alone. Sums over channels (dB, dC) are taken block by block, over
rows (dA, dD) row by row, and added at the end: the order depends on shapes, not on threads.
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
    widest_vectors,
)
from ssmcore_numba.selective import LANES, STEPS, inputs, largest_step

# With fastmath.py of 48122d6f.
# With selective.py of a08a06e1.
__all__ = ["selective_scan_backward"]

Array = Any
WIDEST, NARROWEST, JOBS = 128, 32, 6


def _width(R: int, H: int) -> int:
    """Return how many channels a block has; sums over channels go by blocks, so threads are out."""
    width = WIDEST
    while width > NARROWEST and R * -(-H // width) < JOBS:
        width //= 2
    return min(width, -(-H // LANES) * LANES)


def selective_scan_backward(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None,
    keep: Array | None,
    saved: Array,
    dy: Array,
    dlast: Array,
    *,
    threads: int,
) -> tuple[Array, Array, Array, Array, Array, Array | None, Array]:
    """Return du, ddelta, dA, dB, dC, dD (None without D) and dstart.

    With G_t = C_t dy_t + exp(delta_{t+1} A) G_{t+1}: dB_t = sum_H G_t delta_t u_t,
    dC_t = sum_H h_t dy_t, d(delta_t A) = G_t exp(delta_t A) h_{t-1}.

    Parameters
    ----------
    u, delta, A, B, C, D, keep
        What ``selective_scan`` was given.
    saved : (R, ceil(L / STEPS), N, H)
        Its third result.
    dy : (R, L, H)
    dlast : (R, H, N)
        The derivatives with respect to its first two results.
    threads : int
        Up to so many; the result is the same bit for bit.
    """
    R, L, H = u.shape
    N = A.shape[1]
    width = _width(R, H)
    du, ddelta = np.empty((R, L, H), u.dtype), np.empty((R, L, H), u.dtype)
    dB, dC = np.empty((2, R, -(-H // width), L, N), u.dtype)
    dA, dD = np.empty((R, H, N), u.dtype), np.empty((R, H), u.dtype)
    dstart = np.empty((R, H, N), u.dtype)
    given = [*inputs(u, delta, A, B, C, D, dlast, keep), read_only(dy), read_only(saved)]
    results = (du, ddelta, dA, dB, dC, dD, dstart)
    run(_rows, R * dB.shape[1], threads, *given, width, *results)
    sums = [_sum(x, 1) for x in (dB, dC)]
    return du, ddelta, _sum(dA, 0), *sums, None if D is None else _sum(dD, 0), dstart


def _sum(x: Array, axis: int) -> Array:
    if x.shape[axis] == 1:
        return x.squeeze(axis)
    return np.sum(x, axis=axis, dtype=np.float64).astype(x.dtype)


@kernel
def _rows(
    first: int,
    last: int,
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array,
    dlast: Array,
    keep: Array,
    dy: Array,
    saved: Array,
    width: int,
    du: Array,
    ddelta: Array,
    dA: Array,
    dB: Array,
    dC: Array,
    dD: Array,
    dstart: Array,
) -> None:
    blocks = dB.shape[1]
    for job in range(first, last):
        i = job // blocks
        at = job % blocks
        d_parameters = (dA[i], dB[i, at], dC[i, at], dD[i])
        given = (u[i], delta[i], A, B[i], C[i], D, keep[i : i + 1], dy[i], saved[i], dlast[i])
        _block(at * width, width, given, du[i], ddelta[i], d_parameters, dstart[i])


@njit(error_model="numpy")
def _block(
    lo: int,
    width: int,
    given: Any,
    du: Array,
    ddelta: Array,
    d_parameters: Any,
    dstart: Array,
) -> None:
    """Run one row of channels ``lo`` to ``lo + width`` back."""
    widest_vectors()
    u, delta, A, B, C, D, keep, dy, saved, dlast = given
    dA, dB, dC, dD = d_parameters
    L, N = B.shape
    W = min(width, u.shape[1] - lo)
    real = u.dtype.type
    states = np.zeros((5, N, width), u.dtype)
    poles, G, lost, s_0, m_0 = states[0], states[1], states[2], states[3], states[4]
    sum_A = np.zeros((N, width))
    sum_D = np.zeros(width)
    for n in range(N):
        for k in range(W):
            poles[n, k] = A[lo + k, n] * real(LOG2E)
            G[n, k] = dlast[lo + k, n]
            s_0[n, k] = real(1)
    most = largest_step(poles)
    tiles = np.zeros((5, STEPS, width), u.dtype)
    steps_of_one = np.zeros((3, STEPS + 1, width), u.dtype)
    s, m, moved = steps_of_one[0], steps_of_one[1], steps_of_one[2]
    rows = np.zeros((3, width), u.dtype)
    h, h_lost, sum_n = rows[0], rows[1], rows[2]
    for chunk in range(-(-L // STEPS) - 1, -1, -1):
        first = chunk * STEPS
        steps = min(STEPS, L - first)
        usual = _load(u, delta, dy, first, lo, steps, W, most, tiles)
        for n in range(N):
            for k in range(W):
                h[k] = saved[chunk, n, lo + k]
            for k in range(width):
                h_lost[k] = sum_n[k] = 0
                s[steps, k], m[steps, k] = s_0[n, k], m_0[n, k]
            run = (tiles, poles[n], B, keep, first, steps, n)
            if usual:
                _forth(exp2, run, h, h_lost, s, m, moved, dC)
            else:
                _forth(any_exp2, run, h, h_lost, s, m, moved, dC)
            _back(run, C, s, m, moved, G[n], lost[n], sum_n, dB)
            for k in range(width):
                s_0[n, k], m_0[n, k] = s[0, k], m[0, k]
                sum_A[n, k] += sum_n[k]
        _store(u, D, tiles, first, lo, steps, W, du, ddelta, sum_D)
    for k in range(W):
        dD[lo + k] = sum_D[k]
        for n in range(N):
            kept = s_0[n, k] * G[n, k]
            dA[lo + k, n] = sum_A[n, k]
            dstart[lo + k, n] = fma(m_0[n, k], kept, kept)
            if keep.shape[0] and not keep[0, 0]:
                dstart[lo + k, n] = 0


@njit
def _load(
    u: Array,
    delta: Array,
    dy: Array,
    first: int,
    lo: int,
    steps: int,
    W: int,
    most: float,
    tiles: Array,
) -> bool:
    """Fill tiles with delta, delta u and dy; clear those of the derivatives of the first two."""
    none, one = u.dtype.type(0), u.dtype.type(1)
    beyond = none
    for t in range(steps):
        now = slice(lo, lo + W)
        u_t, delta_t, dy_t = u[first + t, now], delta[first + t, now], dy[first + t, now]
        dt, du, dy_tile, d_dt, d_du = (
            tiles[0, t],
            tiles[1, t],
            tiles[2, t],
            tiles[3, t],
            tiles[4, t],
        )
        for k in range(W):
            dt[k] = delta_t[k]
            beyond = add_in_any_order(beyond, none if abs(delta_t[k]) < most else one)
        for k in range(W):
            du[k] = delta_t[k] * u_t[k]
        for k in range(W):
            dy_tile[k] = dy_t[k]
        for k in range(d_dt.shape[0]):
            d_dt[k] = d_du[k] = 0
    return bool(beyond == 0)


@njit
def _forth(
    power: Any,
    run: Any,
    h: Array,
    lost: Array,
    s: Array,
    m: Array,
    moved: Array,
    dC: Array,
) -> None:
    """Run a chunk of state n again; keep exp(delta A) = s (1 + m) and exp(delta A) h_{t-1}."""
    widest_vectors()
    tiles, pole, B, keep, first, steps, n = run
    zero, one = B.dtype.type(0), B.dtype.type(1)
    for t in range(steps):
        if keep.shape[0] and not keep[0, first + t]:
            for k in range(h.shape[0]):
                h[k] = lost[k] = 0
        dt, du, dy = tiles[0, t], tiles[1, t], tiles[2, t]
        s_t, m_t, moved_t = s[t], m[t], moved[t]
        b = B[first + t, n]
        total = zero
        for k in range(h.shape[0]):
            x, f, q = power(dt[k] * pole[k])
            z = f * q
            kept = x * h[k]
            s_t[k], m_t[k], moved_t[k] = x, z, fma(z, kept, kept)
            v, lost[k] = advance(x, z, one, h[k], fma(du[k], b, lost[k]))
            h[k] = v
            total = add_in_any_order(total, dy[k] * v)
        dC[first + t, n] = total


@njit
def _back(
    run: Any,
    C: Array,
    s: Array,
    m: Array,
    moved: Array,
    G: Array,
    lost: Array,
    sum_A: Array,
    dB: Array,
) -> None:
    """Run a chunk of state n back: G_t takes the place of s_{t+1}, then all sums of G."""
    widest_vectors()
    tiles, pole, B, keep, first, steps, n = run
    zero, one = B.dtype.type(0), B.dtype.type(1)
    order = np.arange(steps)[::-1].copy()  # of rows: LLVM does not vectorise a loop that it sees
    for j in range(steps):  # descend, for fear that the rows of one turn overlap the next one's
        t = order[j]
        after = first + t + 1
        if keep.shape[0] and after < keep.shape[1] and not keep[0, after]:
            for k in range(G.shape[0]):
                G[k] = lost[k] = 0
        dy, s_t, m_t = tiles[2, t], s[t + 1], m[t + 1]
        read = C[first + t, n]
        for k in range(G.shape[0]):
            g, lost[k] = advance(s_t[k], m_t[k], one, G[k], fma(dy[k], read, lost[k]))
            G[k] = s_t[k] = g
    for t in range(steps):
        dt, du, d_dt, d_du = tiles[0, t], tiles[1, t], tiles[3, t], tiles[4, t]
        G_t, moved_t = s[t + 1], moved[t]
        b = B[first + t, n]
        total = zero
        for k in range(G.shape[0]):
            g = G_t[k]
            e = g * moved_t[k]
            d_dt[k] = fma(e, pole[k], d_dt[k])
            sum_A[k] = fma(e, dt[k], sum_A[k])
            d_du[k] = fma(g, b, d_du[k])
            total = add_in_any_order(total, g * du[k])
        dB[first + t, n] = total


@njit
def _store(
    u: Array,
    D: Array,
    tiles: Array,
    first: int,
    lo: int,
    steps: int,
    W: int,
    du: Array,
    ddelta: Array,
    sum_D: Array,
) -> None:
    unit = u.dtype.type(1 / LOG2E)  # poles are in powers of two
    for t in range(steps):
        now = slice(lo, lo + W)
        u_t, du_t, ddelta_t = u[first + t, now], du[first + t, now], ddelta[first + t, now]
        dt, dy, d_dt, d_du = tiles[0, t], tiles[2, t], tiles[3, t], tiles[4, t]
        for k in range(W):
            ddelta_t[k] = fma(d_du[k], u_t[k], unit * d_dt[k])
        if D.shape[0]:
            D_t = D[now]
            for k in range(W):
                du_t[k] = fma(D_t[k], dy[k], d_du[k] * dt[k])
            for k in range(W):
                sum_D[k] += dy[k] * u_t[k]
        else:
            for k in range(W):
                du_t[k] = d_du[k] * dt[k]

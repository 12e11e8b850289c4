"""``diagonal_scan`` of separate channels on the CPU: the states stay in the first caches.

x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) for a, B, C (H, N), real or complex, u (R, L, H), state
(R, H, N). Four steps are taken at once, with k_m = Re(sum_n C a^m B):

    x_{t+4} = a^4 x_t + a^3 B u_t + a^2 B u_{t+1} + a B u_{t+2} + B u_{t+3}
    y_{t+j} = Re(C a^{j+1} x_t) + k_j u_t + ... + k_0 u_{t+j}      (x_t before step t)

A job is a block of channels of one row: time runs outside, then the states, and the channels in
the inner loop, which compiles to vector instructions. What the rounding of a state loses is carried
beside it: where a is near 1 it is the same at every step, and would add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore_numba._jobs import kernel, run
from ssmcore_numba.fastmath import fma

__all__ = ["diagonal_scan"]

LANES = 32
"""Channels of one job; the last job of a row leaves some idle."""
STEPS = 4
A4, INTO, OUT, A, REST, C, X, LOST, SLOTS = 0, 2, 10, 18, 20, 22, 24, 26, 28
"""Where a^4, a^3 B ... B, C a ... C a^4, a, what a^4 lacks, C, the state and what it lost begin."""
U, Y, K = 0, 4, 8
"""Where input, output and taps of four steps begin."""


def diagonal_scan(
    a: Any, B: Any, C: Any, u: Any, state: Any, keep: Any | None, *, reverse: bool, threads: int
) -> tuple[Any, Any]:
    """Return outputs y (R, L, H) and the last state (R, H, N)."""
    rows, _, channels = u.shape
    parts = -(-channels // LANES)
    padding = ((0, parts * LANES - channels), (0, 0))
    table, taps = _table(*(np.pad(z.astype(np.complex128), padding) for z in (a, B, C)))
    work, taps = table.astype(u.dtype), taps.astype(u.dtype)
    work[:, :, REST : REST + 2] = (table - work)[:, :, A4 : A4 + 2]
    x = np.pad(np.stack((state.real, state.imag)), ((0, 0), (0, 0), *padding))
    x = x.reshape(2, rows, parts, LANES, a.shape[1]).transpose(1, 2, 4, 0, 3)
    last = np.ascontiguousarray(x, dtype=u.dtype)  # (R, parts, N, 2, LANES)
    u = np.ascontiguousarray(u)
    y = np.empty_like(u)
    mask = np.zeros((1, 0), np.bool_) if keep is None else np.ascontiguousarray(keep)
    run(_block, rows * parts, threads, work, taps, u, last, mask, reverse, y)
    re, im = last.transpose(3, 0, 1, 4, 2).reshape(2, rows, parts * LANES, a.shape[1])[
        :, :, :channels
    ]
    return y, re + im * 1j if np.iscomplexobj(a) else re


def _table(a: Any, B: Any, C: Any) -> tuple[Any, Any]:
    """Return the factors of all states (parts, N, SLOTS, LANES) and the taps (parts, 4, LANES)."""
    powers = [a**m for m in range(STEPS + 1)]
    factors = [powers[STEPS]]
    factors += [powers[STEPS - 1 - k] * B for k in range(STEPS)]
    factors += [C * powers[k + 1] for k in range(STEPS)]
    factors += [a, 0 * a, C, 0 * a, 0 * a]
    table = np.stack([part for z in factors for part in (z.real, z.imag)])
    table = table.reshape(SLOTS, -1, LANES, a.shape[1]).transpose(1, 3, 0, 2)
    taps = np.stack([np.sum(C * powers[m] * B, axis=1).real for m in range(STEPS)])
    return table, taps.reshape(STEPS, -1, LANES).transpose(1, 0, 2)


@kernel
def _block(first, last, table, taps, u, state, keep, reverse, y):
    length, channels = u.shape[1], u.shape[2]
    parts, count = table.shape[0], table.shape[1]
    restarts = keep.shape[1] > 0
    now = np.zeros((12, LANES), u.dtype)
    for job in range(first, last):
        row, part = job // parts, job % parts
        h0 = part * LANES
        n = min(channels - h0, LANES)
        work = table[part].copy()
        work[:, X : X + 2] = state[row, part]
        now[K : K + STEPS] = taps[part]
        s = 0
        while s < length:
            steps = 0  # up to the next restart
            while steps < STEPS and s + steps < length:
                t = length - 1 - s - steps if reverse else s + steps
                if restarts and not keep[row % keep.shape[0], t]:
                    if steps > 0:
                        break
                    work[:, X : LOST + 2] = 0
                for c in range(n):
                    now[U + steps, c] = u[row, t, h0 + c]
                steps += 1
            if steps == STEPS:
                _four(work.reshape(-1), now.reshape(-1), count)
            else:
                for i in range(steps):
                    _one(work.reshape(-1), now.reshape(-1), count, i)
            for i in range(steps):
                t = length - 1 - s - i if reverse else s + i
                for c in range(n):
                    y[row, t, h0 + c] = now[Y + i, c]
            s += steps
        state[row, part] = work[:, X : X + 2]


@kernel
def _at(slot, c):
    return np.uint64(slot * LANES) + c


@kernel
def _moved(w, c, a, x_r, x_i, b_r, b_i):
    """Return (re, im) of a x + b + what was lost, and what this loses."""
    a_r, a_i = w[_at(a, c)], w[_at(a + 1, c)]
    right = fma(-a_i, x_i, b_r + w[_at(LOST, c)])
    left = fma(a_i, x_r, b_i + w[_at(LOST + 1, c)])
    new_r, new_i = fma(a_r, x_r, right), fma(a_r, x_i, left)
    return new_r, new_i, fma(a_r, x_r, -new_r) + right, fma(a_r, x_i, -new_i) + left


@kernel
def _read(w, c, slot, x_r, x_i, y):
    """Return y + Re(z x) for the factor z at ``slot``."""
    return fma(-w[_at(slot + 1, c)], x_i, fma(w[_at(slot, c)], x_r, y))


@kernel
def _turned(w, c, slot, x_r, x_i, y):
    """Return y + Im(z x) for the factor z at ``slot``."""
    return fma(w[_at(slot, c)], x_i, fma(w[_at(slot + 1, c)], x_r, y))


@kernel
def _four(work, now, count):
    """Take four steps."""
    for c in range(np.uint64(LANES)):
        u0, u1, u2, u3 = now[_at(U, c)], now[_at(U + 1, c)], now[_at(U + 2, c)], now[_at(U + 3, c)]
        k0, k1, k2, k3 = now[_at(K, c)], now[_at(K + 1, c)], now[_at(K + 2, c)], now[_at(K + 3, c)]
        now[_at(Y, c)] = k0 * u0
        now[_at(Y + 1, c)] = fma(k0, u1, k1 * u0)
        now[_at(Y + 2, c)] = fma(k0, u2, fma(k1, u1, k2 * u0))
        now[_at(Y + 3, c)] = fma(k0, u3, fma(k1, u2, fma(k2, u1, k3 * u0)))
    for k in range(count):
        w = work[k * SLOTS * LANES : (k + 1) * SLOTS * LANES]
        for c in range(np.uint64(LANES)):
            x_r, x_i = w[_at(X, c)], w[_at(X + 1, c)]
            now[_at(Y, c)] = _read(w, c, OUT, x_r, x_i, now[_at(Y, c)])
            now[_at(Y + 1, c)] = _read(w, c, OUT + 2, x_r, x_i, now[_at(Y + 1, c)])
            now[_at(Y + 2, c)] = _read(w, c, OUT + 4, x_r, x_i, now[_at(Y + 2, c)])
            now[_at(Y + 3, c)] = _read(w, c, OUT + 6, x_r, x_i, now[_at(Y + 3, c)])
            u0, u1 = now[_at(U, c)], now[_at(U + 1, c)]
            u2, u3 = now[_at(U + 2, c)], now[_at(U + 3, c)]
            b_r = fma(w[_at(INTO + 4, c)], u2, w[_at(INTO + 6, c)] * u3)
            b_i = fma(w[_at(INTO + 5, c)], u2, w[_at(INTO + 7, c)] * u3)
            b_r = fma(w[_at(INTO, c)], u0, fma(w[_at(INTO + 2, c)], u1, b_r))
            b_i = fma(w[_at(INTO + 1, c)], u0, fma(w[_at(INTO + 3, c)], u1, b_i))
            b_r, b_i = _read(w, c, REST, x_r, x_i, b_r), _turned(w, c, REST, x_r, x_i, b_i)
            x_r, x_i, lost_r, lost_i = _moved(w, c, A4, x_r, x_i, b_r, b_i)
            w[_at(X, c)], w[_at(X + 1, c)] = x_r, x_i
            w[_at(LOST, c)], w[_at(LOST + 1, c)] = lost_r, lost_i


@kernel
def _one(work, now, count, step):
    """Take step number ``step`` alone."""
    now[(Y + step) * LANES : (Y + step + 1) * LANES] = 0
    for k in range(count):
        w = work[k * SLOTS * LANES : (k + 1) * SLOTS * LANES]
        for c in range(np.uint64(LANES)):
            v = now[_at(U + step, c)]
            b_r, b_i = w[_at(INTO + 6, c)] * v, w[_at(INTO + 7, c)] * v
            x_r, x_i, lost_r, lost_i = _moved(w, c, A, w[_at(X, c)], w[_at(X + 1, c)], b_r, b_i)
            now[_at(Y + step, c)] = _read(w, c, C, x_r, x_i, now[_at(Y + step, c)])
            w[_at(X, c)], w[_at(X + 1, c)] = x_r, x_i
            w[_at(LOST, c)], w[_at(LOST + 1, c)] = lost_r, lost_i

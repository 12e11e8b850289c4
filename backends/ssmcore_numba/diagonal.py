"""``diagonal_scan`` of separate channels on the CPU: the states stay in the first cache.

x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) for a, B, C (H, N), real or complex, u (R, L, H), state
(R, H, N). A job is a block of channels of one row: time runs outside, then the states, and the
channels in the inner loop, which compiles to vector instructions. What the rounding of a state
loses is carried beside it: where a is near 1 it is the same at every step, and would add up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore_numba._jobs import kernel, run
from ssmcore_numba.fastmath import fma

__all__ = ["diagonal_scan"]

LANES = 32
"""Channels of one job; the last job of a row leaves some idle."""
SLOTS = 10
"""Of each state: a, B, C, x and what rounding took from x, each as (re, im), LANES numbers."""
SIZE = SLOTS * LANES
AI, BR, BI, CR, CI, XR, XI, LR, LI = (np.uint64(k * LANES) for k in range(1, SLOTS))
V1, V2, V3, Y0, Y1, Y2, Y3 = (np.uint64(k * LANES) for k in range(1, 8))


def diagonal_scan(
    a: Any, B: Any, C: Any, u: Any, state: Any, keep: Any | None, *, reverse: bool, threads: int
) -> tuple[Any, Any]:
    """Return outputs y (R, L, H) and the last state (R, H, N)."""
    rows, _, channels = u.shape
    parts = -(-channels // LANES)
    u = np.ascontiguousarray(u)
    y = np.empty_like(u)
    real = [np.ascontiguousarray(z.T) for x in (a, B, C) for z in (x.real, x.imag)]
    last = np.stack((state.real, state.imag), axis=0).transpose(0, 1, 3, 2)
    last = np.ascontiguousarray(last, dtype=u.dtype)
    mask = np.zeros((1, 0), np.bool_) if keep is None else np.ascontiguousarray(keep)
    run(_block, rows * parts, threads, *real, u, last, mask, reverse, parts, y)
    re, im = last.transpose(0, 1, 3, 2)
    return y, re + im * 1j if np.iscomplexobj(a) else re


@kernel
def _block(first, last, ar, ai, br, bi, cr, ci, u, state, keep, reverse, parts, y):
    length, channels = u.shape[1], u.shape[2]
    count = ar.shape[0]
    for job in range(first, last):
        row, h0 = job // parts, job % parts * LANES
        h1 = min(channels, h0 + LANES)
        n = h1 - h0
        # All in one array, at distances known to the compiler: it sees that nothing overlaps.
        work = np.zeros((count + 1, SLOTS, LANES), u.dtype)
        now = work[count]  # u of four steps, then y
        for k in range(count):
            work[k, 0, :n], work[k, 1, :n] = ar[k, h0:h1], ai[k, h0:h1]
            work[k, 2, :n], work[k, 3, :n] = br[k, h0:h1], bi[k, h0:h1]
            work[k, 4, :n], work[k, 5, :n] = cr[k, h0:h1], ci[k, h0:h1]
            work[k, 6, :n], work[k, 7, :n] = state[0, row, k, h0:h1], state[1, row, k, h0:h1]
        s = 0
        while s < length:
            steps = 0  # up to the next restart
            while steps < 4 and s + steps < length:
                t = length - 1 - s - steps if reverse else s + steps
                if keep.shape[1] > 0 and not keep[row % keep.shape[0], t]:
                    if steps > 0:
                        break
                    work[:count, 6:] = 0
                for c in range(n):
                    now[steps, c] = u[row, t, h0 + c]
                steps += 1
            now[4:8] = 0
            if steps == 4:
                _four(work.reshape(-1), count)
            else:
                for i in range(steps):
                    _one(work.reshape(-1), count, i)
            for i in range(steps):
                t = length - 1 - s - i if reverse else s + i
                for c in range(n):
                    y[row, t, h0 + c] = now[4 + i, c]
            s += steps
        for k in range(count):
            state[0, row, k, h0:h1], state[1, row, k, h0:h1] = work[k, 6, :n], work[k, 7, :n]


@kernel
def _step(x, c, v, r, i, lr, li):
    """Return the new state a x + B v, Re(C x) of it, and what its rounding lost."""
    a = x[c]
    right = fma(-x[c + AI], i, fma(x[c + BR], v, lr))
    left = fma(x[c + AI], r, fma(x[c + BI], v, li))
    new_r, new_i = fma(a, r, right), fma(a, i, left)
    lost_r, lost_i = fma(a, r, -new_r) + right, fma(a, i, -new_i) + left
    y = fma(x[c + CR], new_r, -x[c + CI] * new_i)
    return new_r, new_i, y, lost_r, lost_i


@kernel
def _four(w, count):
    """Take four steps: a state stays in registers meanwhile.

    What a step lost is given to the next but one, so that no step waits for it.
    """
    now = w[count * SIZE :]
    for k in range(count):
        x = w[k * SIZE : (k + 1) * SIZE]
        for c in range(np.uint64(LANES)):
            zero = x.dtype.type(0)
            r, i, y0, l0, m0 = _step(x, c, now[c], x[c + XR], x[c + XI], x[c + LR], x[c + LI])
            r, i, y1, l1, m1 = _step(x, c, now[c + V1], r, i, zero, zero)
            r, i, y2, l2, m2 = _step(x, c, now[c + V2], r, i, l0, m0)
            r, i, y3, l3, m3 = _step(x, c, now[c + V3], r, i, l1, m1)
            now[c + Y0] += y0
            now[c + Y1] += y1
            now[c + Y2] += y2
            now[c + Y3] += y3
            x[c + XR], x[c + XI], x[c + LR], x[c + LI] = r, i, l2 + l3, m2 + m3


@kernel
def _one(w, count, step):
    """Take step number ``step`` alone."""
    now = w[count * SIZE + step * LANES :]
    for k in range(count):
        x = w[k * SIZE : (k + 1) * SIZE]
        for c in range(np.uint64(LANES)):
            r, i, y, lr, li = _step(x, c, now[c], x[c + XR], x[c + XI], x[c + LR], x[c + LI])
            now[c + Y0] += y
            x[c + XR], x[c + XI], x[c + LR], x[c + LI] = r, i, lr, li

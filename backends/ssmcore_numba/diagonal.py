"""``diagonal_scan`` of separate channels on the CPU: a chunk of T steps at once, by products.

x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) + D u_t for a, B, C (H, N), real or complex, D (H,),
u (R, L, H), state (R, H, N). With x before a chunk and k_m = Re(sum_n C a^m B), to k_0 added D:

    x' = a^T x + sum_j a^(T-1-j) B u_j,    y_i = Re(C a^(i+1) x) + sum_(j <= i) k_(i-j) u_j

The sums over j and over the states are products of matrices, several chunks of a channel by the
table of the channel; only a^T x goes from chunk to chunk, in float64: a constant input that is
rounded the same way at every step would add up. All of it is done for 8 channels at a time, the
lanes of a vector. Steps too few for a chunk, before the end or before the state restarts, are taken
one by one, which costs three times as much: restarts every hundred steps cost little, every ten
steps twice the time.

A job is 16 channels of one row. In its memory, everything is a number of vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore_numba._jobs import kernel, read_only, run
from ssmcore_numba.vectors import (
    LANES,
    load,
    minus_product,
    narrow,
    nothing,
    plus_product,
    store,
    widen,
)

# With vectors.py of a0b0b742.
__all__ = ["diagonal_scan"]

T = 16
"""Steps of a chunk; even."""
CHUNKS = 8
"""Chunks that a block has at most: a multiple of the 4 that a product takes."""
GROUPS = 2
"""Vectors of channels of a job; the last job of a row leaves some idle."""


def diagonal_scan(
    a: Any,
    B: Any,
    C: Any,
    D: Any | None,
    u: Any,
    state: Any,
    keep: Any | None,
    *,
    reverse: bool,
    threads: int,
) -> tuple[Any, Any]:
    """Return outputs y (R, L, H) and the last state (R, H, N)."""
    rows, _, channels = u.shape
    groups = GROUPS * -(-channels // (GROUPS * LANES))
    jobs = groups // GROUPS
    system = _in_lanes(np.stack((a, B, C)), groups)
    through = np.zeros((0 if D is None else groups, LANES))
    if D is not None:
        through.reshape(-1)[:channels] = D
    table = np.empty((groups, (4 * a.shape[1] + 2) * T * LANES), u.dtype)
    power = np.empty((groups, 2 * a.shape[1] * LANES))
    run(_fill, groups, threads, system, through, table, power)
    x = _in_lanes(state, groups)
    y = np.empty_like(u, order="C")
    mask = read_only(np.zeros((1, 0), np.bool_) if keep is None else keep)
    u = read_only(u)
    run(_run, rows * jobs, threads, system, through, table, power, u, x, mask, reverse, y)
    pairs = x.swapaxes(2, 4).reshape(rows, groups * LANES, 2, a.shape[1])[:, :channels]
    if not np.iscomplexobj(a):
        return y, pairs[:, :, 0].astype(state.dtype)
    last = np.ascontiguousarray(pairs.swapaxes(2, 3)).view(np.complex128)[..., 0]
    return y, last.astype(state.dtype)


def _in_lanes(z: Any, groups: int) -> Any:
    """Return (R, H, N) as (R, groups, N, 2, LANES) in float64: re and im of each state."""
    rows, channels, states = z.shape
    parts = np.zeros((rows, groups * LANES, 2, states))
    parts[:, :channels, 0] = z.real
    parts[:, :channels, 1] = z.imag
    return np.ascontiguousarray(parts.reshape(rows, groups, LANES, 2, states).swapaxes(2, 4))


@kernel
def _fill(first, last, system, through, table, power):
    """Fill the tables of groups: into the states, out of them, the taps; and a^T."""
    states = system.shape[2]
    p, q, taps = np.zeros((2, LANES)), np.zeros((2, LANES)), np.zeros((T + 1, LANES))
    for group in range(first, last):
        w = table[group].reshape(-1, LANES)
        out, end = 2 * states * T, 4 * states * T
        taps[:] = 0
        for n in range(states):
            a, B, C = system[0, group, n], system[1, group, n], system[2, group, n]
            for c in range(LANES):
                p[0, c], p[1, c], q[0, c], q[1, c] = B[0, c], B[1, c], C[0, c], C[1, c]
            for j in range(T):
                for c in range(LANES):
                    taps[j + 1, c] += C[0, c] * p[0, c] - C[1, c] * p[1, c]
                    w[2 * (n * T + T - 1 - j), c] = p[0, c]
                    w[2 * (n * T + T - 1 - j) + 1, c] = p[1, c]
                    p[0, c], p[1, c] = _times(a, p, c)
                    q[0, c], q[1, c] = _times(a, q, c)
                    at = out + 4 * (j // 2 * states + n) + j % 2
                    w[at, c] = q[0, c]
                    w[at + 2, c] = -q[1, c]
            raised = power[group].reshape(-1, 2, LANES)[n]
            raised[0], raised[1] = 1, 0
            for _ in range(T):
                for c in range(LANES):
                    raised[0, c], raised[1, c] = _times(a, raised, c)
        for c in range(LANES if through.shape[0] > 0 else 0):
            taps[1, c] += through[group, c]
        for j in range(T):
            for c in range(LANES):
                w[end + 2 * j, c], w[end + 2 * j + 1, c] = taps[T - 1 - j, c], taps[T - j, c]


@kernel
def _times(a, x, c):
    return a[0, c] * x[0, c] - a[1, c] * x[1, c], a[0, c] * x[1, c] + a[1, c] * x[0, c]


@kernel
def _run(first, last, system, through, table, power, u, x, keep, reverse, y):
    length, groups, states = u.shape[1], table.shape[0], system.shape[2]
    jobs = groups // GROUPS
    now = np.zeros((GROUPS, CHUNKS * T, LANES), u.dtype)
    begin = np.zeros(CHUNKS * 2 * states * LANES, u.dtype)
    for job in range(first, last):
        row, group = job // jobs, job % jobs * GROUPS
        s = np.intp(0)  # no constant: for each of these numba would compile what it is given to
        while s < length:
            if _restarts(keep, row, reverse, length, s):
                x[row, group : group + GROUPS] = 0
            steps = _together(keep, row, reverse, length, s)
            chunks = steps // T
            steps = chunks * T if chunks else steps
            _read(u[row], now, s, steps, group * LANES, reverse)
            for g in range(GROUPS):
                k, inputs = group + g, now[g].reshape(-1)
                state = x[row, k].reshape(-1)
                if chunks:
                    _block(table[k], power[k], inputs, state, begin, chunks)
                else:
                    for i in range(steps):
                        _one(system, through, k, state, inputs, i)
            _write(y[row], now, s, steps, group * LANES, reverse)
            s += steps


@kernel
def _restarts(keep, row, reverse, length, s):
    t = length - 1 - s if reverse else s
    return keep.shape[1] > 0 and not keep[row % keep.shape[0], t]


@kernel
def _together(keep, row, reverse, length, s):
    """Return how many steps from s on fit into a block before the next restart."""
    most = min(CHUNKS * T, length - s)
    if keep.shape[1] > 0:
        for i in range(1, most):
            if _restarts(keep, row, reverse, length, s + i):
                return i
    return most


@kernel
def _read(u, now, s, steps, h0, reverse):
    """Copy ``steps`` steps of the channels from h0 on."""
    for g in range(GROUPS):
        h = np.uint64(h0 + g * LANES)
        whole = h0 + g * LANES + LANES <= u.shape[1]
        for i in range(steps):
            t = u.shape[0] - 1 - s - i if reverse else s + i
            if whole:
                for c in range(np.uint64(LANES)):
                    now[g, i, c] = u[t, h + c]
            else:
                for c in range(u.shape[1] - h0 - g * LANES):
                    now[g, i, c] = u[t, h0 + g * LANES + c]


@kernel
def _write(y, now, s, steps, h0, reverse):
    for g in range(GROUPS):
        h = np.uint64(h0 + g * LANES)
        whole = h0 + g * LANES + LANES <= y.shape[1]
        for i in range(steps):
            t = y.shape[0] - 1 - s - i if reverse else s + i
            if whole:
                for c in range(np.uint64(LANES)):
                    y[t, h + c] = now[g, i, c]
            else:
                for c in range(y.shape[1] - h0 - g * LANES):
                    y[t, h0 + g * LANES + c] = now[g, i, c]


@kernel
def _one(system, through, k, x, now, i):
    """Take one step: row i of ``now`` is the input and becomes the output."""
    a, parts = system[0, k].reshape(-1), x.size // LANES
    B, C = system[1, k].reshape(-1), system[2, k].reshape(-1)
    u, zero = load(now, i), nothing(x)
    v, y = widen(u), zero
    if through.shape[0] > 0:
        y = plus_product(y, load(through.reshape(-1), k), v)
    for n in range(0, parts, 2):
        a_r, a_i, x_r, x_i = load(a, n), load(a, n + 1), load(x, n), load(x, n + 1)
        re = plus_product(plus_product(zero, load(B, n), v), a_r, x_r)
        im = plus_product(plus_product(zero, load(B, n + 1), v), a_r, x_i)
        re, im = minus_product(re, a_i, x_i), plus_product(im, a_i, x_r)
        y = minus_product(plus_product(y, load(C, n), re), load(C, n + 1), im)
        store(x, n, re)
        store(x, n + 1, im)
    store(now, i, narrow(y, u))


@kernel
def _block(table, power, now, x, begin, chunks):
    """Take ``chunks`` chunks: ``now`` is their input and becomes their output."""
    zero = nothing(now)
    none = (zero, zero, zero, zero, zero, zero, zero, zero)
    parts, stride = power.size // LANES, np.intp(T)  # 2 N
    for n in range(parts // 2):
        for m in range(0, chunks, 4):
            sums = _products(none, table, 2 * n * T, stride, now, m * T, stride)
            _put(sums, begin, m * parts + 2 * n, parts)
        _carry(power, x, begin, n, chunks, parts)
    out, taps = parts * T, 2 * parts * T
    for i in range(T - 2, -2, -2):
        for m in range(0, chunks, 4):
            sums = _products(none, table, out + parts * i, parts, begin, m * parts, parts)
            sums = _products(sums, table, taps + 2 * (T - 2 - i), i + 1, now, m * T, stride)
            sums = _newest(sums, load(table, taps + 2 * T - 1), now, m * T + i + 1, stride)
            _put(sums, now, m * T + i, stride)


@kernel
def _products(sums, w, k, count, x, i, stride):
    """Add the products of ``count`` pairs in w from k on with four rows of x from i on."""
    s0, t0, s1, t1, s2, t2, s3, t3 = sums
    for j in range(count):
        left, right = load(w, k + 2 * j), load(w, k + 2 * j + 1)
        v = load(x, i + j)
        s0, t0 = plus_product(s0, left, v), plus_product(t0, right, v)
        v = load(x, i + stride + j)
        s1, t1 = plus_product(s1, left, v), plus_product(t1, right, v)
        v = load(x, i + 2 * stride + j)
        s2, t2 = plus_product(s2, left, v), plus_product(t2, right, v)
        v = load(x, i + 3 * stride + j)
        s3, t3 = plus_product(s3, left, v), plus_product(t3, right, v)
    return s0, t0, s1, t1, s2, t2, s3, t3


@kernel
def _newest(sums, tap, x, i, stride):
    """Add the tap's products with column i of four rows of x to the right sums.

    The left ones are outputs before it: not even 0 times what may be no number is added to them.
    """
    s0, t0, s1, t1, s2, t2, s3, t3 = sums
    t0, t1 = plus_product(t0, tap, load(x, i)), plus_product(t1, tap, load(x, i + stride))
    t2 = plus_product(t2, tap, load(x, i + 2 * stride))
    t3 = plus_product(t3, tap, load(x, i + 3 * stride))
    return s0, t0, s1, t1, s2, t2, s3, t3


@kernel
def _put(sums, x, i, stride):
    """Make the sums pairs at i of four rows of x."""
    s0, t0, s1, t1, s2, t2, s3, t3 = sums
    store(x, i, s0)
    store(x, i + 1, t0)
    store(x, i + stride, s1)
    store(x, i + stride + 1, t1)
    store(x, i + 2 * stride, s2)
    store(x, i + 2 * stride + 1, t2)
    store(x, i + 3 * stride, s3)
    store(x, i + 3 * stride + 1, t3)


@kernel
def _carry(power, x, begin, n, chunks, parts):
    """Put the state before each chunk where what the chunk adds to it was."""
    a_r, a_i = load(power, 2 * n), load(power, 2 * n + 1)
    x_r, x_i = load(x, 2 * n), load(x, 2 * n + 1)
    for m in range(chunks):
        at = m * parts + 2 * n
        s_r, s_i = load(begin, at), load(begin, at + 1)
        store(begin, at, narrow(x_r, s_r))
        store(begin, at + 1, narrow(x_i, s_i))
        new_r = minus_product(plus_product(widen(s_r), a_r, x_r), a_i, x_i)
        x_i = plus_product(plus_product(widen(s_i), a_r, x_i), a_i, x_r)
        x_r = new_r
    store(x, 2 * n, x_r)
    store(x, 2 * n + 1, x_i)

"""What a network does between its products for one token, each a kernel in one thread.

There is little to compute and much to call: a kernel here stands for several operations of an
array library. The threads are the products'.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmcore_numba._jobs import kernel
from ssmcore_numba.fastmath import LOG2E, add_in_any_order, advance, any_exp2, fma, silu, softplus

# With fastmath.py of 48122d6f.
__all__ = ["gate", "rms_norm", "s6", "short_convolution"]

Array = Any


def _rows(x: Array, *tail: int) -> Array:
    """Return ``x`` (..., *tail) as contiguous rows (R, *tail)."""
    rows = x.reshape(math.prod(x.shape[: -len(tail)]), *tail)
    return rows if rows.flags.c_contiguous else np.ascontiguousarray(rows)


def rms_norm(u: Array, scale: Array, eps: float, offset: float) -> Array:
    """Return (offset + scale) u / sqrt(mean u^2 + eps): u (..., H), scale (H)."""
    rows = _rows(u, u.shape[-1])
    y = np.empty_like(rows)
    _rms_norm(rows, scale, eps, offset, y)
    return y.reshape(u.shape)


def short_convolution(
    u: Array, weight: Array, bias: Array | None, before: Array, activate: bool
) -> tuple[Array, Array]:
    """Return y, through silu where ``activate``, and the last inputs.

    u (..., 1, H), weight (K, H), bias (H) or None, before (..., K - 1, H).
    """
    K, H = weight.shape
    bias = np.empty(0, weight.dtype) if bias is None else bias
    rows, past = _rows(u, H), _rows(before, K - 1, H)
    y, after = np.empty_like(rows), np.empty_like(past)
    _short_convolution(rows, weight, bias, past, activate, y, after)
    return y.reshape(u.shape), after.reshape(before.shape)


def s6(
    u: Array, chosen: Array, low: Array, bias: Array, A_log: Array, D: Array, h: Array
) -> tuple[Array, Array]:
    """Return y and the next state: h' = exp(delta A) h + delta B u, y = C h' + D u.

    delta = softplus(low + bias), A = -exp(A_log). u, low (..., 1, H); chosen (..., 1, R + 2N), of
    which the last are B and C; bias, D (H); A_log (H, N); h (..., H, N).
    """
    H, N = A_log.shape
    rows, start = _rows(u, H), _rows(h, H, N)
    y, after = np.empty_like(rows), np.empty_like(start)
    _s6(rows, _rows(chosen, chosen.shape[-1]), _rows(low, H), bias, A_log, D, start, y, after)
    return y.reshape(u.shape), after.reshape(h.shape)


def gate(y: Array, z: Array) -> Array:
    """Return y silu(z), both (..., H)."""
    rows = _rows(y, y.shape[-1])
    out = np.empty_like(rows)
    _gate(rows, _rows(z, z.shape[-1]), out)
    return out.reshape(y.shape)


@kernel
def _rms_norm(u: Array, scale: Array, eps: float, offset: float, y: Array) -> None:
    R, H = u.shape
    for i in range(R):
        u_i, y_i = u[i], y[i]
        square = u.dtype.type(0)
        for k in range(H):
            square = add_in_any_order(square, u_i[k] * u_i[k])
        root = u.dtype.type(1 / np.sqrt(square / H + eps))
        for k in range(H):
            y_i[k] = u_i[k] * root * (scale[k] + u.dtype.type(offset))


@kernel
def _short_convolution(
    u: Array, weight: Array, bias: Array, before: Array, activate: bool, y: Array, after: Array
) -> None:
    K, H = weight.shape
    for i in range(u.shape[0]):
        u_i, y_i, last = u[i], y[i], weight[K - 1]
        for k in range(H):
            y_i[k] = last[k] * u_i[k]
        for j in range(K - 1):
            w, x = weight[j], before[i, j]
            for k in range(H):
                y_i[k] += w[k] * x[k]
        for j in range(K - 2):
            x, out = before[i, j + 1], after[i, j]
            for k in range(H):
                out[k] = x[k]
        if K > 1:
            out = after[i, K - 2]
            for k in range(H):
                out[k] = u_i[k]
        if bias.shape[0]:
            for k in range(H):
                y_i[k] += bias[k]
        if activate:
            for k in range(H):
                y_i[k] = silu(y_i[k])


@kernel
def _gate(y: Array, z: Array, out: Array) -> None:
    for i in range(y.shape[0]):
        y_i, z_i, out_i = y[i], z[i], out[i]
        for k in range(y.shape[1]):
            out_i[k] = y_i[k] * silu(z_i[k])


@kernel
def _s6(
    u: Array,
    chosen: Array,
    low: Array,
    bias: Array,
    A_log: Array,
    D: Array,
    h: Array,
    y: Array,
    after: Array,
) -> None:
    R, H = u.shape
    N = A_log.shape[1]
    first = chosen.shape[1] - 2 * N
    log2e, zero = u.dtype.type(LOG2E), u.dtype.type(0)
    delta = np.empty(H, u.dtype)
    for i in range(R):
        B, C = chosen[i, first : first + N], chosen[i, first + N :]
        for k in range(H):
            delta[k] = softplus(low[i, k] + bias[k])
        for k in range(H):
            logs, before, new = A_log[k], h[i, k], after[i, k]
            step, drive, total = -log2e * delta[k], delta[k] * u[i, k], zero
            for n in range(N):
                s, f, q = any_exp2(logs[n] * log2e)
                s, f, q = any_exp2(fma(s * f, q, s) * step)
                v, _ = advance(s, f, q, before[n], drive * B[n])
                new[n] = v
                total = add_in_any_order(total, C[n] * v)
            if not np.isfinite(total):  # by the rules of IEEE
                total = zero
                for n in range(N):
                    new[n] = np.exp(-delta[k] * np.exp(logs[n])) * before[n] + drive * B[n]
                    total += C[n] * new[n]
            y[i, k] = fma(D[k], u[i, k], total)

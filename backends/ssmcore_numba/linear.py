"""``linear_scan`` on the CPU: one pass over memory, forward and backward.

h_t = a_t h_{t-1} + b_t for a (R or 1, L or 1, P), b (R, L, P), start (R, P) of one dtype, and
keep (R or 1, L), False where the state restarts. A job is one row, or a part of its channels: time
runs in the outer loop and the channels in the inner one, which compiles to vector instructions.
States are carried in double precision and rounded once each.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from ssmcore_numba._jobs import kernel, run

__all__ = ["linear_scan", "linear_scan_backward", "states", "widest"]

NARROWEST = 128
"""Channels of one job at least: narrower parts share cache lines and cost more than they gain."""


def _parts(rows: int, channels: int, threads: int) -> int:
    """Return into how many jobs the channels of a row are cut."""
    return max(1, min(-(-threads // max(rows, 1)), channels // NARROWEST))


def widest(dtype: Any) -> Any:
    """Return the double precision type of real or complex ``dtype``."""
    return np.result_type(dtype, np.float64)


def _mask(keep: Any | None) -> Any:
    return np.zeros((1, 0), np.bool_) if keep is None else np.ascontiguousarray(keep)


def linear_scan(
    a: Any, b: Any, start: Any, keep: Any | None, *, reverse: bool, threads: int
) -> Any:
    """Return all states h (R, L, P)."""
    state = start.astype(widest(b.dtype), order="C")  # a copy, which the kernel carries on
    return states(a, b, state, keep, reverse, threads)


def states(a: Any, b: Any, state: Any, keep: Any | None, reverse: bool, threads: int) -> Any:
    """Return all states from ``state`` (R, P), widest and contiguous, which is carried on."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    h = np.empty_like(b)
    parts = _parts(b.shape[0], b.shape[2], threads)
    run(_scan, b.shape[0] * parts, threads, a, b, state, _mask(keep), reverse, parts, h)
    return h


def linear_scan_backward(
    a: Any, h: Any, g: Any, start: Any, keep: Any | None, *, reverse: bool, threads: int
) -> tuple[Any, Any, Any]:
    """Return (da, db, dstart) from g = dL/dh; da has the shape of ``a``.

    G_t = g_t + conj(a_{t+1}) G_{t+1}; db_t = G_t, da_t = G_t conj(h_{t-1}), dstart = conj(a_0) G_0.
    """
    a, h, g, start = map(np.ascontiguousarray, (a, h, g, start))
    rows, length, channels = g.shape
    G, moved = np.empty_like(g), np.zeros((rows, channels), widest(g.dtype))
    if a.shape[1] == length:
        da = np.empty((rows, length, channels), a.dtype)
    else:
        da = np.zeros((rows, 1, channels), widest(a.dtype))
    parts = _parts(rows, channels, threads)
    run(_adjoint, rows * parts, threads, a, h, g, start, _mask(keep), reverse, parts, moved, G, da)
    if a.shape[0] < rows:
        da = np.sum(da, axis=0, keepdims=True, dtype=widest(da.dtype))
    return da.astype(a.dtype, copy=False), G, moved.astype(start.dtype)


@kernel
def _place(job: int, parts: int, channels: int) -> tuple[int, int, int]:
    """Return row, first channel and number of channels of a job."""
    row, part = job // parts, job % parts
    first = channels * part // parts
    return row, first, channels * (part + 1) // parts - first


_inlined: Any = numba.njit(inline="always")  # a call for each step of few channels costs a fifth


def _scan_step(down: bool) -> Any:
    @_inlined
    def step(a, in_a, h, b, at, n, out):
        """h_t = a_t h_{t-1} + b_t of n channels."""
        for k in range(np.uint64(n)):
            c = np.uint64(n - 1) - k if down else k
            v = a[in_a + c] * h[c] + b[at + c]
            h[c] = v
            out[at + c] = v

    return step


def _adjoint_step(down: bool, adds: bool) -> Any:
    @_inlined
    def step(a, in_a, on, g, at, n, G, h, in_h, da, in_da):
        """G_t, conj(a_t) G_t for the next, and da_t = G_t conj(h_{t-1}), of n channels."""
        for k in range(np.uint64(n)):
            c = np.uint64(n - 1) - k if down else k
            v = g[at + c] + on[c]
            on[c] = np.conj(a[in_a + c]) * v
            G[at + c] = v
            if adds:
                da[in_da + c] += v * np.conj(h[in_h + c])
            else:
                da[in_da + c] = v * np.conj(h[in_h + c])

    return step


# Memory is read along its order or against it, never forth and back: half the time at 256 channels.
_scan_up, _scan_down = _scan_step(False), _scan_step(True)
_adjoint_up, _adjoint_down = _adjoint_step(False, False), _adjoint_step(True, False)
_adjoint_added = _adjoint_step(False, True)


@kernel
def _scan(first, last, a, b, state, keep, reverse, parts, out):
    """Write the states."""
    _, length, channels = b.shape
    flat_a, flat_b, flat_out = a.reshape(-1), b.reshape(-1), out.reshape(-1)
    varies, restarts = a.shape[1] > 1, keep.shape[1] > 0
    for job in range(first, last):
        row, c0, n = _place(job, parts, channels)
        h = state[row, c0 : c0 + n]
        row_a, row_keep = row % a.shape[0], row % keep.shape[0]
        for s in range(length):
            t = length - 1 - s if reverse else s
            in_a = np.uint64((row_a * a.shape[1] + t * varies) * channels + c0)
            at = np.uint64((row * length + t) * channels + c0)
            if restarts and not keep[row_keep, t]:
                for c in range(np.uint64(n)):
                    h[c] = flat_b[at + c]
                    flat_out[at + c] = flat_b[at + c]
            elif reverse:
                _scan_down(flat_a, in_a, h, flat_b, at, n, flat_out)
            else:
                _scan_up(flat_a, in_a, h, flat_b, at, n, flat_out)


@kernel
def _adjoint(first, last, a, h, g, start, keep, reverse, parts, moved, G, da):
    """Write G_t and da_t, the last step first; ``moved`` carries conj(a_t) G_t to the one before.

    da of a transition that is the same at all times is added up.
    """
    _, length, channels = g.shape
    flat_a, flat_g, flat_G, flat_da = a.reshape(-1), g.reshape(-1), G.reshape(-1), da.reshape(-1)
    flat_h, flat_start = h.reshape(-1), start.reshape(-1)
    varies = a.shape[1] == length
    for job in range(first, last):
        row, c0, n = _place(job, parts, channels)
        on = moved[row, c0 : c0 + n]
        row_a, row_keep = row % a.shape[0], row % keep.shape[0]
        for s in range(length):
            t = s if reverse else length - 1 - s
            in_a = np.uint64((row_a * a.shape[1] + t * varies) * channels + c0)
            at = np.uint64((row * length + t) * channels + c0)
            before = t + 1 if reverse else t - 1
            begins = before in (-1, length)
            in_h = np.uint64((row if begins else row * length + before) * channels + c0)
            states = flat_start if begins else flat_h
            in_da = at if varies else np.uint64(row * channels + c0)
            if keep.shape[1] > 0 and not keep[row_keep, t]:
                for c in range(np.uint64(n)):
                    flat_G[at + c] = flat_g[at + c] + on[c]
                    on[c] = 0
                if varies:
                    flat_da[at : at + np.uint64(n)] = 0
            elif not varies:
                _adjoint_added(
                    flat_a, in_a, on, flat_g, at, n, flat_G, states, in_h, flat_da, in_da
                )
            elif reverse:
                _adjoint_up(flat_a, in_a, on, flat_g, at, n, flat_G, states, in_h, flat_da, in_da)
            else:
                _adjoint_down(flat_a, in_a, on, flat_g, at, n, flat_G, states, in_h, flat_da, in_da)

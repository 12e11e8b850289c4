"""``linear_scan`` on the CPU: one pass over memory, forward and backward.

h_t = a_t h_{t-1} + b_t for a (R or 1, L or 1, P), b (R, L, P), start (R, P) of one dtype, and
keep (R or 1, L), False where the state restarts. A job is one row, or a part of its channels: time
runs in the outer loop and the channels in the inner one, which compiles to vector instructions.
States are carried in double precision and rounded once each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore_numba._jobs import kernel, run

__all__ = ["linear_scan", "linear_scan_backward", "states", "widest"]

NARROWEST = 128
"""Channels of one job at least: narrower parts share cache lines and cost more than they gain."""

SHORTEST = 256
"""Steps of one job at least, where time can be cut."""


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
    return states(a, b, state, keep, reverse, False, threads)


def linear_scan_backward(
    a: Any, h: Any, g: Any, start: Any, keep: Any | None, *, reverse: bool, threads: int
) -> tuple[Any, Any, Any]:
    """Return (da, db, dstart) from g = dL/dh; da has the shape of ``a``.

    G_t = g_t + conj(a_{t+1}) G_{t+1}; db_t = G_t, da_t = G_t conj(h_{t-1}), dstart = conj(a_0) G_0.
    """
    rows, length, channels = g.shape
    G = states(a, g, np.zeros((rows, channels), widest(g.dtype)), keep, not reverse, True, threads)
    first = length - 1 if reverse else 0
    dstart = np.conj(a[:, first % a.shape[1]]) * G[:, first]
    if keep is not None:
        dstart[~np.broadcast_to(keep[:, first], (rows,))] = 0
    given = (h, np.ascontiguousarray(start), _mask(keep), reverse)
    if a.shape[1] == length:
        da = np.empty_like(G)
        cuts = max(1, min(threads, length // SHORTEST))
        run(_products, rows * cuts, threads, G, *given, cuts, da)
    else:
        da = np.zeros((rows, 1, channels), widest(g.dtype))
        parts = _parts(rows, channels, threads)
        run(_summed_products, rows * parts, threads, G, *given, parts, da)
    if a.shape[0] < rows:
        da = np.sum(da, axis=0, keepdims=True, dtype=widest(da.dtype))
    return da.astype(a.dtype, copy=False), G, dstart


def states(
    a: Any, b: Any, state: Any, keep: Any | None, reverse: bool, adjoint: bool, threads: int
) -> Any:
    """Return all states from ``state`` (R, P), widest and contiguous, which is carried on."""
    a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
    h = np.empty_like(b)
    parts = _parts(b.shape[0], b.shape[2], threads)
    given = (a, b, state, _mask(keep), reverse, adjoint, parts, h)
    run(_scan, b.shape[0] * parts, threads, *given)
    return h


@kernel
def _place(job: int, parts: int, channels: int) -> tuple[int, int, int]:
    """Return row, first channel and number of channels of a job."""
    row, part = job // parts, job % parts
    first = channels * part // parts
    return row, first, channels * (part + 1) // parts - first


@kernel
def _scan(first, last, a, b, state, keep, reverse, adjoint, parts, out):
    """Write the states; ``adjoint`` moves each by the conjugate of the step before it."""
    _, length, channels = b.shape
    flat_a, flat_b, flat_out = a.reshape(-1), b.reshape(-1), out.reshape(-1)
    varies, restarts = a.shape[1] > 1, keep.shape[1] > 0
    back = (-1 if reverse else 1) * adjoint
    for job in range(first, last):
        row, c0, n = _place(job, parts, channels)
        h = state[row, c0 : c0 + n]
        row_a, row_keep = row % a.shape[0], row % keep.shape[0]
        for s in range(length):
            t = length - 1 - s if reverse else s
            by = t - back  # the step whose transition applies
            in_a = np.uint64((row_a * a.shape[1] + by * varies) * channels + c0)
            in_b = np.uint64((row * length + t) * channels + c0)
            if (adjoint and s == 0) or (restarts and not keep[row_keep, by]):
                for c in range(np.uint64(n)):
                    h[c] = flat_b[in_b + c]
                    flat_out[in_b + c] = flat_b[in_b + c]
            else:
                for c in range(np.uint64(n)):
                    now = flat_a[in_a + c]
                    v = (np.conj(now) if adjoint else now) * h[c] + flat_b[in_b + c]
                    h[c] = v
                    flat_out[in_b + c] = v


@kernel
def _products(first, last, G, h, start, keep, reverse, cuts, da):
    """da_t = G_t conj(h_{t-1}), zero where the state restarts."""
    _, length, channels = G.shape
    flat_G, flat_da = G.reshape(-1), da.reshape(-1)
    for job in range(first, last):
        row, cut = job // cuts, job % cuts
        for t in range(length * cut // cuts, length * (cut + 1) // cuts):
            before = t + 1 if reverse else t - 1
            h_before = start[row] if before in (-1, length) else h[row, before]
            at = np.uint64((row * length + t) * channels)
            if keep.shape[1] > 0 and not keep[row % keep.shape[0], t]:
                da[row, t] = 0
            else:
                for c in range(np.uint64(channels)):
                    flat_da[at + c] = flat_G[at + c] * np.conj(h_before[c])


@kernel
def _summed_products(first, last, G, h, start, keep, reverse, parts, da):
    """The same, summed over time for a transition that does not change with it."""
    _, length, channels = G.shape
    for job in range(first, last):
        row, c0, n = _place(job, parts, channels)
        total = da[row, 0, c0 : c0 + n]
        for t in range(length):
            before = t + 1 if reverse else t - 1
            h_before = start[row] if before in (-1, length) else h[row, before]
            if keep.shape[1] == 0 or keep[row % keep.shape[0], t]:
                for c in range(np.uint64(n)):
                    total[c] += G[row, t, c0 + c] * np.conj(h_before[c0 + c])

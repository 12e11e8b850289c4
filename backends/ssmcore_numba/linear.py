"""``linear_scan`` on the CPU: one pass over memory, forward and backward.

h_t = a_t h_{t-1} + b_t for a (R or 1, L or 1, P), b (R, L, P), start (R, P) of one dtype, and
keep (R or 1, L), False where the state restarts. States are carried in double precision and rounded
once each.

A few steps of LANES channels are taken, in registers, then the same steps of the next channels.
Where there are fewer rows than threads, a row is cut into parts of its channels and a long one into
pieces of time. All pieces run at once, those after the first from zero; then each of those again,
from the state in which the one before ended, until its state is what it was the first time, bit for
bit, as is then everything after. The result is that of one piece, for any number of threads. What
is done twice is little if the past fades; if it never does, all takes as long as in one piece.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from ssmcore_numba._jobs import kernel, read_only, run
from ssmcore_numba.vectors import (
    LANES,
    conjugate,
    load_at,
    load_one,
    narrow,
    plus,
    plus_product,
    product,
    store_at,
    to_be_read,
    to_be_written,
    widen,
)

# With vectors.py of a0b0b742.
__all__ = ["linear_scan", "linear_scan_backward", "states", "widest"]

NARROWEST = 128
"""Channels of a part at least: narrower ones share cache lines and cost more than they gain."""
SHORTEST = 2048
"""Steps of a piece at least."""
FEWEST = 2**16
"""Numbers for one thread at least: for fewer, another one takes longer to wake up."""
FIRST_MARK = 512
"""Steps after which a piece is compared with what it was; then after twice as many, and so on."""
STEPS = 4
"""Steps taken at a time."""
PAGE = 4096
"""Bytes that they may span: rows in more pages than one are better read one after the other."""
AHEAD = 1024
"""Bytes between what is in use and what is brought near meanwhile."""


def _cuts(shape: tuple[int, ...], threads: int) -> tuple[int, int, int]:
    """Return how many threads are of use, parts of the channels of a row, and pieces of time."""
    rows, length, channels = shape
    threads = max(1, min(threads, rows * length * channels // FEWEST))
    wanted = -(-threads // max(rows, 1))
    parts = max(1, min(wanted, channels // NARROWEST))
    return threads, parts, max(1, min(wanted // parts, length // SHORTEST))


def widest(dtype: Any) -> Any:
    """Return the double precision type of real or complex ``dtype``."""
    return np.result_type(dtype, np.float64)


def _mask(keep: Any | None) -> Any:
    return read_only(np.zeros((1, 0), np.bool_) if keep is None else keep)


def linear_scan(
    a: Any, b: Any, start: Any, keep: Any | None, *, reverse: bool, threads: int
) -> Any:
    """Return all states h (R, L, P)."""
    state = start.astype(widest(b.dtype), order="C")  # a copy, which the kernel carries on
    return states(a, b, state, keep, reverse, threads)


def states(a: Any, b: Any, state: Any, keep: Any | None, reverse: bool, threads: int) -> Any:
    """Return all states from ``state`` (R, P), widest and contiguous, which is carried on."""
    a, b = read_only(a), read_only(b)
    h = np.empty_like(b)
    _run(_scan, _cuts(b.shape, threads), state, b.shape[1], a, b, _mask(keep), reverse, h)
    return h


def linear_scan_backward(
    a: Any, h: Any, g: Any, start: Any, keep: Any | None, *, reverse: bool, threads: int
) -> tuple[Any, Any, Any]:
    """Return (da, db, dstart) from g = dL/dh; da has the shape of ``a``.

    G_t = g_t + conj(a_{t+1}) G_{t+1}; db_t = G_t, da_t = G_t conj(h_{t-1}), dstart = conj(a_0) G_0.
    """
    a, h, g, start = map(read_only, (a, h, g, start))
    rows, length, channels = g.shape
    G, moved = np.empty_like(g), np.zeros((rows, channels), widest(g.dtype))
    threads, parts, pieces = _cuts(g.shape, threads)
    if a.shape[1] == length:
        da = np.empty((rows, length, channels), a.dtype)
    else:
        pieces = 1  # da is one sum over time
        da = np.zeros((rows, 1, channels), widest(a.dtype))
    given = (a, h, g, start, _mask(keep), reverse, G, da)
    _run(_adjoint, (threads, parts, pieces), moved, length, *given)
    if a.shape[0] < rows:
        da = np.sum(da, axis=0, keepdims=True, dtype=widest(da.dtype))
    return da.astype(a.dtype, copy=False), G, moved.astype(start.dtype)


def _run(scan: Any, cuts: tuple[int, int, int], state: Any, length: int, *given: Any) -> None:
    """Run ``scan`` from ``state`` (R, P), which is carried on, over all pieces of time."""
    threads, parts, pieces = cuts
    carried = np.zeros((pieces, *state.shape), state.dtype)
    carried[0] = state
    marks = np.empty((pieces if pieces > 1 else 0, length.bit_length(), *state.shape), state.dtype)
    jobs = state.shape[0] * parts
    run(scan, jobs * pieces, threads, False, parts, carried, marks, given)
    if pieces > 1:
        run(scan, jobs, threads, True, parts, carried, marks, given)
    state[:] = carried[-1]


@numba.njit
def _equal(x, y, c0, end):
    """Whether channels c0 to ``end`` are equal bit for bit: zeros have signs, and NaN is NaN."""
    equal = True
    x_bits, y_bits = x[c0:end].view(np.uint64), y[c0:end].view(np.uint64)
    for k in range(x_bits.size):
        equal &= x_bits[k] == y_bits[k]
    return equal


@numba.njit
def _copy(x, out, c0, end):
    """Copy channels c0 to ``end``; an assignment of slices brings in strings, for seconds."""
    for c in range(c0, end):
        out[c] = x[c]


@numba.njit
def _place(job, parts, channels):
    """Return row, first channel and end of the channels of a part, a number of vectors but one."""
    row, part, vectors = job // parts, job % parts, channels // LANES
    end = vectors * (part + 1) // parts * LANES if part + 1 < parts else channels
    return row, vectors * part // parts * LANES, end


@numba.njit
def _together(keep, row, reverse, length, s, most):
    """Return how many steps from s on are taken at a time: ``most``, 1, or 0 where it restarts."""
    if keep.shape[1] > 0:
        kept = keep[row % keep.shape[0]]
        for i in range(most):
            if not kept[length - 1 - s - i if reverse else s + i]:
                return min(i, 1)
    return most


@numba.njit
def _scan_steps(given, row, c0, end, s, to, state):
    """Write the states of steps s to ``to`` of some channels of a row; carry ``state`` on."""
    a, b, keep, reverse, out = given
    _, length, channels = b.shape
    flat_a, flat_b, flat_out = a.reshape(-1), b.reshape(-1), out.reshape(-1)
    varies = a.shape[1] > 1
    step = -channels if reverse else channels
    step_a = step if varies else 0
    many = STEPS if STEPS * channels * b.itemsize <= PAGE else 1
    while s < to:
        t = length - 1 - s if reverse else s
        at = (row * length + t) * channels
        in_a = (row % a.shape[0] * a.shape[1] + (t if varies else 0)) * channels
        steps = _together(keep, row, reverse, length, s, many if s + many <= to else 1)
        if steps == 0:
            for c in range(c0, end):
                state[c] = flat_b[at + c]
                flat_out[at + c] = flat_b[at + c]
        elif steps == 1:
            _scan_one(flat_a, in_a, step_a, flat_b, at, step, c0, end, state, flat_out)
        else:
            _scan_many(flat_a, in_a, step_a, flat_b, at, step, c0, end, state, flat_out)
        s += max(1, steps)


@numba.njit
def _adjoint_steps(given, row, c0, end, s, to, on):
    """Write G and da of steps s to ``to``, counted from the last one; carry ``on`` on."""
    a, h, g, start, keep, reverse, G, da = given
    _, length, channels = g.shape
    flat_a, flat_g, flat_G, flat_da = a.reshape(-1), g.reshape(-1), G.reshape(-1), da.reshape(-1)
    flat_h, flat_start = h.reshape(-1), start.reshape(-1)
    varies = a.shape[1] == length
    step = channels if reverse else -channels
    step_a = step if varies else 0
    many = STEPS if varies and STEPS * channels * g.itemsize <= PAGE else 1
    while s < to:
        t = s if reverse else length - 1 - s
        at = (row * length + t) * channels
        in_a = (row % a.shape[0] * a.shape[1] + (t if varies else 0)) * channels
        in_da = at if varies else row * channels
        begins = s == length - 1
        states, in_h = (flat_start, row * channels) if begins else (flat_h, at + step)
        most = many if s + many <= min(to, length - 1) else 1
        steps = _together(keep, row, not reverse, length, s, most)
        if steps == 0:
            for c in range(c0, end):
                flat_G[at + c] = flat_g[at + c] + on[c]
                on[c] = 0
            if varies:
                flat_da[at + c0 : at + end] = 0
        elif not varies:
            _adjoint_added(
                flat_a,
                in_a,
                step_a,
                states,
                in_h,
                flat_g,
                at,
                step,
                c0,
                end,
                on,
                flat_G,
                flat_da,
                in_da,
            )
        elif steps == 1:
            _adjoint_one(
                flat_a,
                in_a,
                step_a,
                states,
                in_h,
                flat_g,
                at,
                step,
                c0,
                end,
                on,
                flat_G,
                flat_da,
                in_da,
            )
        else:
            _adjoint_many(
                flat_a,
                in_a,
                step_a,
                states,
                in_h,
                flat_g,
                at,
                step,
                c0,
                end,
                on,
                flat_G,
                flat_da,
                in_da,
            )
        s += max(1, steps)


_inlined: Any = numba.njit(inline="always")  # a call for each step of few channels costs a fifth


def _scan_tile(steps: int) -> Any:
    @_inlined
    def channels(load, c, a, in_a, step_a, b, at, step, ahead, state, out):
        """h_t = a_t h_{t-1} + b_t."""
        x = load(state, c)
        for i in range(steps):
            now, now_a = at + i * step + c, in_a + i * step_a + c
            to_be_read(a, now_a + ahead)
            to_be_read(b, now + ahead)
            to_be_written(out, now + ahead)
            v = load(b, now)
            x = plus_product(widen(v), widen(load(a, now_a)), x)
            store_at(out, now, narrow(x, v))
        store_at(state, c, x)

    @_inlined
    def tile(a, in_a, step_a, b, at, step, c0, end, state, out):
        ahead = (AHEAD if step > 0 else -AHEAD) // b.itemsize
        vectors = (end - c0) // LANES
        for k in range(vectors):  # along the order of memory or against it, as time runs
            c = c0 + (k if step > 0 else vectors - 1 - k) * LANES
            channels(load_at, c, a, in_a, step_a, b, at, step, ahead, state, out)
        for c in range(c0 + vectors * LANES, end):
            channels(load_one, c, a, in_a, step_a, b, at, step, ahead, state, out)

    return tile


def _adjoint_tile(steps: int, adds: bool) -> Any:
    @_inlined
    def channels(load, c, a, in_a, step_a, h, in_h, g, at, step, ahead, on, G, da, in_da):
        """G_t, conj(a_t) G_t for the step before, and da_t = G_t conj(h_{t-1})."""
        x, kind = load(on, c), load(da, in_da + c)
        for i in range(steps):
            now, now_a, now_h = at + i * step + c, in_a + i * step_a + c, in_h + i * step + c
            to_be_read(a, now_a + ahead)
            to_be_read(h, now_h + ahead)
            to_be_read(g, now + ahead)
            to_be_written(G, now + ahead)
            v = load(g, now)
            y = plus(widen(v), x)
            x = product(conjugate(widen(load(a, now_a))), y)
            store_at(G, now, narrow(y, v))
            before = conjugate(widen(load(h, now_h)))
            if adds:
                total = plus_product(widen(load(da, in_da + c)), before, y)
                store_at(da, in_da + c, narrow(total, kind))
            else:
                to_be_written(da, now + ahead)
                store_at(da, now, narrow(product(before, y), kind))
        store_at(on, c, x)

    @_inlined
    def tile(a, in_a, step_a, h, in_h, g, at, step, c0, end, on, G, da, in_da):
        ahead = (AHEAD if step > 0 else -AHEAD) // g.itemsize
        vectors = (end - c0) // LANES
        for k in range(vectors):
            c = c0 + (k if step > 0 else vectors - 1 - k) * LANES
            channels(load_at, c, a, in_a, step_a, h, in_h, g, at, step, ahead, on, G, da, in_da)
        for c in range(c0 + vectors * LANES, end):
            channels(load_one, c, a, in_a, step_a, h, in_h, g, at, step, ahead, on, G, da, in_da)

    return tile


_scan_one, _scan_many = _scan_tile(1), _scan_tile(STEPS)
_adjoint_one, _adjoint_many = _adjoint_tile(1, False), _adjoint_tile(STEPS, False)
_adjoint_added = _adjoint_tile(1, True)


def _through(take: Any) -> Any:
    """Return what lets ``take`` run through pieces of all steps."""

    @_inlined
    def one(begin, until, again, row, c0, end, state, marks, given):
        """Run through a piece; ``again``: until there is nothing new. Tell whether that was so."""
        s, mark = begin, 0
        while s < until:
            to = min(until, max(begin + FIRST_MARK, 2 * s - begin))
            take(given, row, c0, end, s, to, state)
            if again and _equal(state, marks[0, mark, row], c0, end):
                return True
            if not again and marks.shape[0] > 0:
                _copy(state, marks[0, mark, row], c0, end)
            s, mark = to, mark + 1
        return False

    @_inlined
    def some(length, first, last, again, parts, carried, marks, given):
        """Run through one piece a job; ``again``: through all after the first one."""
        pieces, _, channels = carried.shape
        for job in range(first, last):
            row, c0, end = _place(job if again else job // pieces, parts, channels)
            for piece in range(1, pieces) if again else range(job % pieces, job % pieces + 1):
                begin, until = length * piece // pieces, length * (piece + 1) // pieces
                state = carried[piece - 1 if again else piece, row].copy()
                if not one(begin, until, again, row, c0, end, state, marks[piece:], given):
                    _copy(state, carried[piece, row], c0, end)

    return some


_scan_through, _adjoint_through = _through(_scan_steps), _through(_adjoint_steps)


@kernel
def _scan(first, last, again, parts, carried, marks, given):
    """Write the states."""
    _scan_through(given[1].shape[1], first, last, again, parts, carried, marks, given)


@kernel
def _adjoint(first, last, again, parts, carried, marks, given):
    """Write G_t and da_t, the last step first; conj(a_t) G_t is carried to the one before.

    da of a transition that is the same at all times is added up.
    """
    _adjoint_through(given[2].shape[1], first, last, again, parts, carried, marks, given)

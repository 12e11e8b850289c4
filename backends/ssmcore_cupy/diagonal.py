"""``diagonal_scan`` on CuPy: the states of all steps are never held.

Separate channels run in one kernel, their states in registers. A system that mixes all channels is
a product of matrices before the scan of its states and one after it, part by part of the sequence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from ssmcore_cuda.source import Source

from ssmcore import arrays
from ssmcore.primitives.canonical import diagonal_scan_form
from ssmcore.primitives.dispatch import REFERENCES
from ssmcore_cupy.launch import NULL, Launch, strided
from ssmcore_cupy.linear import linear_scan
from ssmcore_cupy.rows import real_name

__all__ = ["Layout", "diagonal_scan", "layout"]

THREADS = 128
WARP = 32
STEPS = 8
REGISTERS = 64
"""Bytes of states in double precision that a thread holds at most; thrice as many coefficients."""
FILLING = 1 << 16
"""Threads that fill a device."""
SHORTEST = 128
"""Steps a segment has at least."""
WORTH = 4
"""Segments from which on cutting the time pays."""
NUMBERS = 1 << 22
"""Numbers that the states of a part have, about: they stay in the cache of the device."""


def diagonal_scan(
    launch: Launch,
    a: Any,
    B: Any,
    C: Any,
    u: Any,
    initial: Any | None,
    *,
    D: Any | None = None,
    reset: Any | None,
    reverse: bool,
) -> tuple[Any, Any]:
    """See ssmcore.diagonal_scan; more states a channel than a warp can hold: the reference."""
    if 0 in u.shape or 0 in a.shape or (a.ndim == 2 and a.shape[1] > _most(a)):
        run = REFERENCES["diagonal_scan"]
        out: tuple[Any, Any] = run(a, B, C, u, initial, D=D, reset=reset, reverse=reverse)
        return out
    xp = arrays.namespace(a, u)
    rows, state, keep = diagonal_scan_form(a, u, initial, reset)
    given = Given(a, B, C, rows, keep, state)
    y = xp.empty(rows.shape, dtype=u.dtype, device=arrays.device(u))
    if a.ndim == 1:
        last = _mixing(launch, given, y, reverse)
    elif reverse:
        keep = None if keep is None else keep[:, ::-1]
        turned = given._replace(u=rows[:, ::-1, :], keep=keep)
        last = _separate(launch, turned, y[:, ::-1, :])
    else:
        last = _separate(launch, given, y)
    if D is not None:
        y += D * rows
    return xp.reshape(y, u.shape), xp.reshape(last, (*u.shape[:-2], *a.shape))


class Given(NamedTuple):
    """The arguments by rows: u (R, L, H), keep (R | 1, L), start (R, P) or (R, H, N)."""

    a: Any
    B: Any
    C: Any
    u: Any
    keep: Any | None
    start: Any


def _mixing(launch: Launch, given: Given, y: Any, reverse: bool) -> Any:
    """Write the outputs of one system to ``y``; return its last state.

    Complex numbers lie as pairs in memory, so that both products are of real matrices.
    """
    xp, (rows, length, _) = arrays.namespace(given.u), given.u.shape
    into = given.B.T.copy().view(y.dtype)
    onto = xp.conj(given.C).copy().view(y.dtype).T
    part = max(SHORTEST, NUMBERS // (rows * given.a.shape[0]))
    starts, state = range(0, length, part), given.start
    for first in reversed(starts) if reverse else starts:
        now = slice(first, first + part)
        b = xp.matmul(given.u[:, now, :], into).view(given.a.dtype)
        reset = None if given.keep is None else ~given.keep[:, now]
        h = linear_scan(launch, given.a, b, state, reset=reset, reverse=reverse)
        y[:, now, :] = xp.matmul(h.view(y.dtype), onto)
        state = h[:, 0 if reverse else -1, :]
    return state


@dataclass(frozen=True)
class Layout:
    """``lanes`` threads a channel with ``per_lane`` states each; the time in ``segments``.

    Segments have ``segment`` steps, a power of two if there are several.
    """

    lanes: int
    per_lane: int
    segments: int
    segment: int


def layout(sequences: int, length: int, states: int, most: int) -> Layout:
    """Return how to run ``sequences`` (rows times channels) of ``length`` steps.

    More lanes a channel where one thread cannot hold the states, of which it takes ``most``, and
    where there are too few threads. Where even that leaves a device empty the time is cut, which
    costs everything but the output twice.
    """
    lanes = 1
    while lanes < WARP and (
        -(-states // lanes) > most or (sequences * lanes < FILLING and states > lanes)
    ):
        lanes *= 2
    per_lane = -(-states // lanes)
    wanted = min(FILLING // (sequences * lanes), length // SHORTEST)
    if wanted < WORTH:
        return Layout(lanes, per_lane, 1, length)
    segment = 1 << (length // wanted).bit_length() - 1
    return Layout(lanes, per_lane, -(-length // segment), segment)


def _separate(launch: Launch, given: Given, y: Any) -> Any:
    """Write the outputs of all channels to ``y``; return their last states."""
    xp, (rows, length, channels) = arrays.namespace(given.u), given.u.shape
    chosen = layout(rows * channels, length, given.a.shape[1], _most(given.a) // WARP)
    after = NULL if chosen.segments == 1 else _after(launch, chosen, given)
    shape, device = (rows, *given.a.shape), arrays.device(y)
    last = xp.empty(shape, dtype=given.a.dtype, device=device)
    _run(launch, chosen, given, (after, *strided(y, 3), last, NULL, NULL))
    return last


def _after(launch: Launch, chosen: Layout, given: Given) -> Any:
    """Return the state after each segment, (R, segments, H N) in double precision."""
    xp, rows, device = arrays.namespace(given.u), given.u.shape[0], arrays.device(given.u)
    wide = xp.complex128 if arrays.is_complex(given.a) else xp.float64
    shape = (rows, chosen.segments, given.a.shape[0] * given.a.shape[1])
    ends = xp.empty(shape, dtype=wide, device=device)
    kept = xp.empty(shape[:2], dtype=xp.bool, device=device)
    results = (NULL, *strided(None, 3), NULL, ends, kept)
    _run(launch, chosen, given, results, reduce=True)
    power = xp.reshape(xp.astype(given.a, wide), (-1,))
    for _ in range(chosen.segment.bit_length() - 1):
        power = power * power
    start = xp.astype(xp.reshape(given.start, (rows, -1)), wide, copy=False)
    reset = None if given.keep is None else ~kept
    return linear_scan(launch, power, ends, start, reset=reset, reverse=False)


def _run(
    launch: Launch,
    chosen: Layout,
    given: Given,
    results: tuple[Any, ...],
    *,
    reduce: bool = False,
) -> None:
    rows, length, channels = given.u.shape
    constants: dict[str, str | int] = {
        "REAL": real_name(given.u),
        "IS_COMPLEX": int(arrays.is_complex(given.a)),
        "STATES": given.a.shape[1],
        "LANES": chosen.lanes,
        "PER_LANE": chosen.per_lane,
        "STEPS": 1 if length == 1 else STEPS,
        "THREADS": THREADS,
        "RESETS": int(given.keep is not None),
        "REDUCE": int(reduce),
    }
    coefficients = (x for name in "aBC" for x in strided(getattr(given, name), 2))
    sizes = (np.int64(n) for n in (length, channels, chosen.segments, chosen.segment))
    arguments = (
        *coefficients,
        *strided(given.u, 3),
        *strided(given.keep, 2),
        *strided(given.start, 3),
        *results,
        *sizes,
    )
    blocks = rows * -(-channels * chosen.lanes // THREADS) * chosen.segments
    source = Source("diagonal_scan.cu", tuple(constants.items()))
    launch(source, "diagonal_scan", blocks, THREADS, arguments)


def _most(a: Any) -> int:
    """Return how many states a warp can hold."""
    return WARP * REGISTERS // (16 if arrays.is_complex(a) else 8)

"""``selective_scan`` on CuPy: serial in time, all states in registers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ssmcore import arrays
from ssmcore.primitives.dispatch import REFERENCES
from ssmcore_cupy.launch import NULL, Launch, Source, strided
from ssmcore_cupy.linear import linear_scan
from ssmcore_cupy.rows import as_rows, broadcast_rows, real_name

__all__ = ["Layout", "layout", "selective_scan"]

THREADS = 128
WARP = 32
MOST_STATES = 256
REGISTERS = 32
"""Bytes of states a thread holds at most (and twice as many beside: what rounding took, and A)."""
FILLING = 1 << 16
"""Threads that fill a device."""
SHORTEST = 128
"""Steps a segment has at least."""
WORTH = 4
"""Segments from which on cutting the time pays."""


def selective_scan(
    launch: Launch,
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any | None,
    *,
    initial: Any | None,
    reset: Any | None,
) -> tuple[Any, Any]:
    """See ssmcore.selective_scan: real, with B and C shared by the channels; else the reference."""
    if 0 in u.shape or not _fits(u, A, B, C):
        run = REFERENCES["selective_scan"]
        out: tuple[Any, Any] = run(u, delta, A, B, C, D, initial=initial, reset=reset)
        return out
    xp = arrays.namespace(u, delta, A, B, C)
    lead, (length, channels) = u.shape[:-2], u.shape[-2:]
    states, rows = A.shape[1], math.prod(lead)
    chosen = layout(rows * channels, length, states, u.itemsize)
    segment = -(-length // chosen.segments)
    given = _Given(
        (rows, -(-length // segment), segment),
        as_rows(u, 2),
        as_rows(delta, 2),
        A,
        as_rows(B, 2),
        as_rows(C, 2),
        D,
        None if reset is None else broadcast_rows(reset, lead, 1),
        None if initial is None else as_rows(initial, 2),
    )
    after = NULL if chosen.segments == 1 else _after(launch, chosen, given)
    y = xp.empty(given.u.shape, dtype=u.dtype, device=arrays.device(u))
    last = xp.empty((rows, channels, states), dtype=u.dtype, device=arrays.device(u))
    _run(launch, chosen, given, (after, y, last, NULL, NULL, NULL))
    return xp.reshape(y, u.shape), xp.reshape(last, (*lead, channels, states))


class _Given(NamedTuple):
    """The arguments by rows; ``cut`` is (rows, segments, steps of a segment)."""

    cut: tuple[int, int, int]
    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any | None
    reset: Any | None
    start: Any | None


def _after(launch: Launch, chosen: Layout, given: _Given) -> Any:
    """Return the state after each segment, (R, segments, H N) in double precision."""
    xp, u, (rows, segments, _) = arrays.namespace(given.u), given.u, given.cut
    numbers, device = math.prod(given.A.shape), arrays.device(u)
    shape = (rows, segments, numbers)
    map_a, map_b = (xp.empty(shape, dtype=xp.float64, device=device) for _ in range(2))
    keep = xp.empty(shape[:2], dtype=xp.bool, device=device)
    _run(launch, chosen, given, (NULL, NULL, NULL, map_a, map_b, keep), reduce=True)
    start = None
    if given.start is not None:
        start = xp.astype(xp.reshape(given.start, (rows, numbers)), xp.float64, copy=False)
    restarts = None if given.reset is None else ~keep
    return linear_scan(launch, map_a, map_b, start, reset=restarts, reverse=False)


def _run(
    launch: Launch,
    chosen: Layout,
    given: _Given,
    results: tuple[Any, ...],
    *,
    reduce: bool = False,
) -> None:
    rows, segments, segment = given.cut
    length, channels = given.u.shape[1:]
    arguments = (
        *strided(given.u, 3),
        *strided(given.delta, 3),
        *strided(given.A, 2),
        *strided(given.B, 3),
        *strided(given.C, 3),
        *strided(given.D, 1),
        *strided(given.reset, 2),
        *strided(given.start, 3),
        *results,
        *(np.int64(n) for n in (length, channels, segments, segment)),
    )
    source = _source(chosen, given, reduce)
    blocks = rows * -(-channels * chosen.lanes // THREADS) * segments
    launch(source, "selective_scan", blocks, THREADS, arguments)


def _fits(u: Any, A: Any, B: Any, C: Any) -> bool:
    real = not any(arrays.is_complex(x) for x in (A, B, C))
    return real and B.ndim == C.ndim == u.ndim and 0 < A.shape[1] <= MOST_STATES


@dataclass(frozen=True)
class Layout:
    """``lanes`` threads a channel, ``steps`` at a time; the whole time in ``segments``."""

    lanes: int
    per_lane: int
    vector: int
    steps: int
    segments: int


def layout(sequences: int, length: int, states: int, itemsize: int) -> Layout:
    """Return how to run ``sequences`` (rows times channels) of ``length`` steps.

    Few lanes a channel do the least work; more where one thread cannot hold the states, where
    there are too few threads, and for a single step, which is all reading and writing of states.
    Where even that leaves a device empty the time is cut, which costs everything but the output
    twice.
    """
    lanes = 1
    while lanes < WARP and (
        -(-states // lanes) * itemsize > REGISTERS
        or (sequences * lanes < FILLING and states > 4 * lanes)
        or (length == 1 and states > lanes)
    ):
        lanes *= 2
    per_lane = -(-states // lanes)
    vector = next(v for v in (16 // itemsize, 2, 1) if per_lane % v == 0)
    wanted = FILLING // (sequences * lanes)
    segments = min(wanted, length // SHORTEST) if wanted >= WORTH else 1
    steps = 1 if length == 1 else 32 // itemsize
    return Layout(lanes, per_lane, vector, steps, max(1, segments))


def _source(chosen: Layout, given: _Given, reduce: bool) -> Source:
    constants: dict[str, str | int] = {
        "REAL": real_name(given.u),
        "STATES": given.A.shape[1],
        "LANES": chosen.lanes,
        "PER_LANE": chosen.per_lane,
        "VECTOR": chosen.vector,
        "STEPS": chosen.steps,
        "THREADS": THREADS,
        "RESETS": int(given.reset is not None),
        "REDUCE": int(reduce),
    }
    return Source("selective_scan.cu", tuple(constants.items()))

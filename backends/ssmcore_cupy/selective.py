"""``selective_scan`` on CuPy: serial in time, all states in registers."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from ssmcore_cuda.selective import MOST_STATES, THREADS, Layout, constants, cut, layout
from ssmcore_cuda.source import Source

from ssmcore import arrays
from ssmcore.primitives.dispatch import REFERENCES
from ssmcore_cupy.launch import NULL, Launch, strided
from ssmcore_cupy.linear import linear_scan
from ssmcore_cupy.rows import as_rows, broadcast_rows

__all__ = ["Given", "coefficients", "forward", "selective_scan"]


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
    xp, lead = arrays.namespace(u, delta, A, B, C), u.shape[:-2]
    given = Given(
        as_rows(u, 2),
        as_rows(delta, 2),
        A,
        as_rows(B, 2),
        as_rows(C, 2),
        D,
        None if reset is None else broadcast_rows(reset, lead, 1),
        None if initial is None else as_rows(initial, 2),
    )
    y, last = forward(launch, given)
    return xp.reshape(y, u.shape), xp.reshape(last, (*lead, *A.shape))


class Given(NamedTuple):
    """The arguments by rows: (R, L, H), (R, L, N), (R | 1, L), (R, H, N)."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any | None
    reset: Any | None
    start: Any | None


def forward(launch: Launch, given: Given, checkpoints: Any | None = None) -> tuple[Any, Any]:
    """Return y (R, L, H) and the last states (R, H, N).

    The states before each ``steps`` of the layout go to ``checkpoints`` (R, ceil(L / steps), H, N).
    """
    xp, u = arrays.namespace(given.u), given.u
    rows, length, channels = u.shape
    states = given.A.shape[1]
    chosen = layout(rows * channels, length, states, u.itemsize)
    after = NULL if chosen.segments == 1 else _after(launch, chosen, given)
    y = xp.empty(u.shape, dtype=u.dtype, device=arrays.device(u))
    last = xp.empty((rows, channels, states), dtype=u.dtype, device=arrays.device(u))
    notes = NULL if checkpoints is None else checkpoints
    _run(launch, chosen, given, (after, y, last, NULL, NULL, NULL, notes))
    return y, last


def _after(launch: Launch, chosen: Layout, given: Given) -> Any:
    """Return the state after each segment, (R, segments, H N) in double precision."""
    xp, u = arrays.namespace(given.u), given.u
    rows, segments = u.shape[0], cut(chosen, u.shape[1])[0]
    shape, device = (rows, segments, math.prod(given.A.shape)), arrays.device(u)
    map_a, map_b = (xp.empty(shape, dtype=xp.float64, device=device) for _ in range(2))
    restarts = xp.empty(shape[:2], dtype=xp.bool, device=device)
    _run(launch, chosen, given, (NULL, NULL, NULL, map_a, map_b, restarts, NULL), reduce=True)
    start = None
    if given.start is not None:
        start = xp.astype(xp.reshape(given.start, (rows, -1)), xp.float64, copy=False)
    reset = None if given.reset is None else restarts
    return linear_scan(launch, map_a, map_b, start, reset=reset, reverse=False)


def coefficients(given: Given) -> tuple[Any, ...]:
    """Return the arguments that forward and backward kernels have in common."""
    return (
        *strided(given.u, 3),
        *strided(given.delta, 3),
        *strided(given.A, 2),
        *strided(given.B, 3),
        *strided(given.C, 3),
        *strided(given.D, 1),
        *strided(given.reset, 2),
    )


def _run(
    launch: Launch,
    chosen: Layout,
    given: Given,
    results: tuple[Any, ...],
    *,
    reduce: bool = False,
) -> None:
    rows, length, channels = given.u.shape
    segments, segment = cut(chosen, length)
    sizes = (np.int64(n) for n in (length, channels, segments, segment))
    arguments = (*coefficients(given), *strided(given.start, 3), *results, *sizes)
    compiled_for = (
        *constants(chosen, given.u.dtype, given.A.shape[1], resets=given.reset is not None),
        ("REDUCE", int(reduce)),
        ("PACKED", 0),
    )
    source = Source("selective_scan.cu", compiled_for)
    blocks = rows * -(-channels * chosen.lanes // THREADS) * segments
    launch(source, "selective_scan", blocks, THREADS, arguments)


def _fits(u: Any, A: Any, B: Any, C: Any) -> bool:
    real = not any(arrays.is_complex(x) for x in (A, B, C))
    return real and B.ndim == C.ndim == u.ndim and 0 < A.shape[1] <= MOST_STATES

"""``linear_scan`` on CuPy: one pass where there are enough channels, else segments of the time."""

from __future__ import annotations

from typing import Any

import numpy as np
from ssmcore_cuda import linear as layout

from ssmcore import arrays
from ssmcore.primitives.canonical import LinearScan, linear_scan_form
from ssmcore_cupy.launch import NULL, Launch, strided

__all__ = ["linear_scan"]


def linear_scan(
    launch: Launch, a: Any, b: Any, initial: Any | None, *, reset: Any | None, reverse: bool
) -> Any:
    """See ssmcore.linear_scan."""
    xp = arrays.namespace(a, b)
    if 0 in b.shape:
        return xp.zeros_like(b)
    given = linear_scan_form(a, b, initial, reset)
    h = xp.empty(given.b.shape, dtype=b.dtype, device=arrays.device(b))
    if reverse:
        keep = None if given.keep is None else given.keep[:, ::-1]
        turned = LinearScan(given.a[:, ::-1, :], given.b[:, ::-1, :], given.start, keep)
        _scan(launch, turned, h[:, ::-1, :], *layout.cut(h.shape))
    else:
        _scan(launch, given, h, *layout.cut(h.shape))
    return xp.reshape(h, b.shape)


def _scan(launch: Launch, given: LinearScan, h: Any, count: int, segment: int) -> None:
    """Write all states to ``h`` (R, L, P), the time cut into ``count`` segments."""
    after = NULL if count == 1 else _after(launch, given, count, segment)
    results = (*strided(given.start, 2), after, *strided(h, 3))
    _run(launch, "linear_scan", given, results, count, segment)


def _after(launch: Launch, given: LinearScan, count: int, segment: int) -> Any:
    """Return the state after each segment, (R, count, P) in double precision."""
    xp, b = arrays.namespace(given.b), given.b
    rows, _, width = b.shape
    wide = xp.complex128 if arrays.is_complex(b) else xp.float64
    shape, device = (rows, count, width), arrays.device(b)
    map_a, map_b, after = (xp.empty(shape, dtype=wide, device=device) for _ in range(3))
    keep = xp.empty((rows, count), dtype=xp.bool, device=device)
    _run(launch, "linear_reduce", given, (map_a, map_b, keep), count, segment)
    start = xp.astype(given.start, wide, copy=False)
    maps = LinearScan(map_a, map_b, start, None if given.keep is None else keep)
    _scan(launch, maps, after, 1, count)
    return after


def _run(
    launch: Launch,
    name: str,
    given: LinearScan,
    results: tuple[Any, ...],
    count: int,
    segment: int,
) -> None:
    shape = given.b.shape
    chosen = layout.launch(
        shape,
        given.b.dtype,
        count,
        varies=given.a.shape[1] > 1,
        resets=given.keep is not None,
    )
    coefficients = (*strided(given.a, 3), *strided(given.b, 3), *strided(given.keep, 2))
    sizes = (np.int64(n) for n in (*shape, count, segment))
    arguments = (*coefficients, *results, *sizes)
    launch(chosen.source, name, chosen.blocks, chosen.threads, arguments)

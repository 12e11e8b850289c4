"""``linear_scan`` on CuPy: one pass where there are enough channels, else segments of the time."""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore import arrays
from ssmcore_cupy.launch import NULL, Launch, Source, strided
from ssmcore_cupy.rows import as_rows, broadcast_rows, real_name

__all__ = ["linear_scan"]

WARP = 32
BLOCKS = 1024
"""Blocks that fill any device."""
ENOUGH = 256
"""Blocks from which on cutting the time gains less than reading everything twice costs."""
SHORTEST = 512
"""Steps a segment has at least."""


def linear_scan(
    launch: Launch, a: Any, b: Any, initial: Any | None, *, reset: Any | None, reverse: bool
) -> Any:
    """See ssmcore.linear_scan."""
    xp = arrays.namespace(a, b)
    if 0 in b.shape:
        return xp.zeros_like(b)
    lead = b.shape[:-2]
    b_rows = as_rows(b, 2)
    a_rows = broadcast_rows(xp.astype(a, b.dtype, copy=False), lead, 2)
    start = None if initial is None else as_rows(xp.astype(initial, b.dtype, copy=False), 1)
    restarts = None if reset is None else broadcast_rows(reset, lead, 1)
    h = xp.empty(b_rows.shape, dtype=b.dtype, device=arrays.device(b))
    way = slice(None, None, -1 if reverse else 1)
    given = a_rows[:, way, :], b_rows[:, way, :], None if restarts is None else restarts[:, way]
    count = segments(b_rows.shape)
    _scan(launch, *given, start, h[:, way, :], count)
    return xp.reshape(h, b.shape)


def segments(shape: tuple[int, int, int]) -> int:
    """Return into how many segments to cut the time of (R, L, P)."""
    rows, length, width = shape
    groups = -(-rows * width // WARP)
    wanted = 1 if groups >= ENOUGH else -(-BLOCKS // groups)
    return max(1, min(wanted, length // SHORTEST))


def _scan(launch: Launch, a: Any, b: Any, reset: Any, start: Any, h: Any, count: int) -> None:
    """Write all states to ``h`` (R, L, P); a (R | 1, L | 1, P), start (R, P), reset (R | 1, L)."""
    length = b.shape[1]
    segment = -(-length // count)
    count = -(-length // segment)
    after = None if count == 1 else _after(launch, a, b, reset, start, count, segment)
    source, warps = _source(a, b, reset)
    arguments = (
        *_coefficients(a, b, reset),
        *strided(start, 2),
        NULL if after is None else after,
        *strided(h, 3),
    )
    _launch(launch, source, "linear_scan", warps, arguments, b.shape, count, segment)


def _after(launch: Launch, a: Any, b: Any, reset: Any, start: Any, count: int, segment: int) -> Any:
    """Return the state after each segment, (R, count, P) in double precision."""
    xp = arrays.namespace(b)
    rows, _, width = b.shape
    wide = xp.complex128 if arrays.is_complex(b) else xp.float64
    shape, device = (rows, count, width), arrays.device(b)
    map_a, map_b, after = (xp.empty(shape, dtype=wide, device=device) for _ in range(3))
    cut = xp.empty((rows, count), dtype=xp.bool, device=device)
    source, warps = _source(a, b, reset)
    arguments = (*_coefficients(a, b, reset), map_a, map_b, cut)
    _launch(launch, source, "linear_reduce", warps, arguments, b.shape, count, segment)
    start = None if start is None else xp.astype(start, wide, copy=False)
    _scan(launch, map_a, map_b, None if reset is None else cut, start, after, 1)
    return after


def _coefficients(a: Any, b: Any, reset: Any) -> tuple[Any, ...]:
    return (*strided(a, 3), *strided(b, 3), *strided(reset, 2))


def _source(a: Any, b: Any, reset: Any) -> tuple[Source, int]:
    """Return the kernels for these arrays, and how many warps their blocks have."""
    length = b.shape[1]
    warps = 1 if length < WARP else 8
    rows = 1 if length == 1 else 8 if b.itemsize == 4 else 4  # 32 bytes of b a thread
    constants: dict[str, str | int] = {
        "REAL": real_name(b),
        "IS_COMPLEX": int(arrays.is_complex(b)),
        "VARIES": int(a.shape[1] > 1),
        "RESETS": int(reset is not None),
        "WARPS": warps,
        "ROWS": rows,
    }
    return Source("linear_scan.cu", tuple(constants.items())), warps


def _launch(
    launch: Launch,
    source: Source,
    name: str,
    warps: int,
    arguments: tuple[Any, ...],
    shape: tuple[int, int, int],
    count: int,
    segment: int,
) -> None:
    rows, length, width = shape
    sizes = (np.int64(n) for n in (rows, length, width, count, segment))
    blocks = -(-rows * width // WARP) * count
    launch(source, name, blocks, WARP * warps, (*arguments, *sizes))

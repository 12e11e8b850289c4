"""``linear_scan`` on CuPy: one pass where there are enough channels, else segments of the time."""

from __future__ import annotations

from typing import Any

import numpy as np
from ssmcore_cuda.source import Source

from ssmcore import arrays
from ssmcore.primitives.canonical import LinearScan, linear_scan_form
from ssmcore_cupy.launch import NULL, Launch, strided
from ssmcore_cupy.rows import real_name

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
    given = linear_scan_form(a, b, initial, reset)
    h = xp.empty(given.b.shape, dtype=b.dtype, device=arrays.device(b))
    if reverse:
        keep = None if given.keep is None else given.keep[:, ::-1]
        turned = LinearScan(given.a[:, ::-1, :], given.b[:, ::-1, :], given.start, keep)
        _scan(launch, turned, h[:, ::-1, :], segments(h.shape))
    else:
        _scan(launch, given, h, segments(h.shape))
    return xp.reshape(h, b.shape)


def segments(shape: tuple[int, int, int]) -> int:
    """Return into how many segments to cut the time of (R, L, P)."""
    rows, length, width = shape
    groups = -(-rows * width // WARP)
    wanted = 1 if groups >= ENOUGH else -(-BLOCKS // groups)
    return max(1, min(wanted, length // SHORTEST))


def _scan(launch: Launch, given: LinearScan, h: Any, count: int) -> None:
    """Write all states to ``h`` (R, L, P), the time cut into ``count`` segments or fewer."""
    length = h.shape[1]
    segment = -(-length // count)
    count = -(-length // segment)
    after = NULL if count == 1 else _after(launch, given, count, segment)
    source, warps = _source(given)
    arguments = (*_coefficients(given), *strided(given.start, 2), after, *strided(h, 3))
    _launch(launch, source, "linear_scan", warps, arguments, h.shape, count, segment)


def _after(launch: Launch, given: LinearScan, count: int, segment: int) -> Any:
    """Return the state after each segment, (R, count, P) in double precision."""
    xp, b = arrays.namespace(given.b), given.b
    rows, _, width = b.shape
    wide = xp.complex128 if arrays.is_complex(b) else xp.float64
    shape, device = (rows, count, width), arrays.device(b)
    map_a, map_b, after = (xp.empty(shape, dtype=wide, device=device) for _ in range(3))
    keep = xp.empty((rows, count), dtype=xp.bool, device=device)
    source, warps = _source(given)
    arguments = (*_coefficients(given), map_a, map_b, keep)
    _launch(launch, source, "linear_reduce", warps, arguments, b.shape, count, segment)
    start = xp.astype(given.start, wide, copy=False)
    maps = LinearScan(map_a, map_b, start, None if given.keep is None else keep)
    _scan(launch, maps, after, 1)
    return after


def _coefficients(given: LinearScan) -> tuple[Any, ...]:
    return (*strided(given.a, 3), *strided(given.b, 3), *strided(given.keep, 2))


def _source(given: LinearScan) -> tuple[Source, int]:
    """Return the kernels for these arrays, and how many warps their blocks have."""
    b, length = given.b, given.b.shape[1]
    warps = 1 if length < WARP else 8
    rows = 1 if length == 1 else 8 if b.itemsize == 4 else 4  # 32 bytes of b a thread
    constants: dict[str, str | int] = {
        "REAL": real_name(b),
        "IS_COMPLEX": int(arrays.is_complex(b)),
        "VARIES": int(given.a.shape[1] > 1),
        "RESETS": int(given.keep is not None),
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

"""How ``linear_scan.cu`` is laid out on a device: into how many blocks, for which constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmcore_cuda.source import Source

__all__ = ["Launch", "cut", "launch", "segments"]

WARP = 32
BLOCKS = 1024
"""Blocks that fill any device."""
ENOUGH = 256
"""Blocks from which on cutting the time gains less than reading everything twice costs."""
SHORTEST = 512
"""Steps a segment has at least."""


def segments(shape: tuple[int, int, int]) -> int:
    """Return into how many segments to cut the time of (R, L, P)."""
    rows, length, width = shape
    groups = -(-rows * width // WARP)
    wanted = 1 if groups >= ENOUGH else -(-BLOCKS // groups)
    return max(1, min(wanted, length // SHORTEST))


def cut(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return the number of segments and how many steps each of them but the last has."""
    length = shape[1]
    segment = -(-length // segments(shape))
    return -(-length // segment), segment


@dataclass(frozen=True)
class Launch:
    """What to compile, and the size of the grid."""

    source: Source
    blocks: int
    threads: int


def launch(
    shape: tuple[int, int, int],
    dtype: Any,
    count: int,
    *,
    varies: bool,
    resets: bool,
    shifted: bool = False,
    packed: bool = False,
) -> Launch:
    """Return how to run (R, L, P) of ``dtype``, the time cut into ``count`` segments.

    The flags are those that the kernels are compiled for.
    """
    rows, length, width = shape
    dtype = np.dtype(dtype)
    warps = 1 if length < WARP else 8
    complex_numbers = dtype.kind == "c"
    real = "float" if dtype.itemsize == (8 if complex_numbers else 4) else "double"
    constants: dict[str, str | int] = {
        "REAL": real,
        "IS_COMPLEX": int(complex_numbers),
        "VARIES": int(varies),
        "RESETS": int(resets),
        "SHIFTED": int(shifted),
        "PACKED": int(packed),
        "WARPS": warps,
        # 32 bytes of b a thread
        "ROWS": 1 if length == 1 else 8 if dtype.itemsize == 4 else 4,
    }
    source = Source("linear_scan.cu", tuple(constants.items()))
    return Launch(source, -(-rows * width // WARP) * count, WARP * warps)

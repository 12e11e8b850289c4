"""``short_convolution`` on CuPy: one pass, the last inputs written by the same kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from ssmcore_cuda.source import Source

from ssmcore import arrays
from ssmcore.primitives.dispatch import REFERENCES
from ssmcore_cupy.launch import NULL, Launch, strided
from ssmcore_cupy.rows import as_rows, real_name

__all__ = ["short_convolution"]

WARP = 32
MOST_TAPS = 16
"""Inputs and weights of one thread are in registers."""


def short_convolution(
    launch: Launch, u: Any, weight: Any, bias: Any | None, state: Any | None
) -> tuple[Any, Any]:
    """See ssmcore.short_convolution."""
    taps, (length, channels) = weight.shape[0], u.shape[-2:]
    if 0 in u.shape or taps > MOST_TAPS:
        out: tuple[Any, Any] = REFERENCES["short_convolution"](u, weight, bias, state)
        return out
    xp, lead = arrays.namespace(u, weight), u.shape[:-2]
    inputs, past = as_rows(u, 2), taps - 1
    rows = inputs.shape[0]
    y = xp.empty(inputs.shape, dtype=u.dtype, device=arrays.device(u))
    last = xp.empty((rows, past, channels), dtype=u.dtype, device=arrays.device(u))
    before = None if state is None or not past else as_rows(state, 2)
    arguments = (
        *strided(inputs, 3),
        *strided(weight, 2),
        *strided(bias, 1),
        *strided(before, 3),
        y,
        last if past else NULL,
        *(np.int64(n) for n in (rows, length, channels)),
    )
    source, warps, tile = _source(u, taps)
    blocks = -(-rows * channels // WARP) * -(-length // tile)
    launch(source, "short_convolution", blocks, WARP * warps, arguments)
    return xp.reshape(y, u.shape), xp.reshape(last, (*lead, past, channels))


def _source(u: Any, taps: int) -> tuple[Source, int, int]:
    """Return the kernel, how many warps its blocks have, and how many steps they take."""
    warps, rows = (1, 1) if u.shape[-2] == 1 else (4, 8)
    constants = (("REAL", real_name(u)), ("TAPS", taps), ("WARPS", warps), ("ROWS", rows))
    return Source("short_convolution.cu", constants), warps, warps * rows

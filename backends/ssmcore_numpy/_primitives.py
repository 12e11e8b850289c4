"""Primitives of NumPy that run numba's kernels."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from ssmcore_numba import diagonal, linear, mixing

from ssmcore.primitives.canonical import diagonal_scan_form, linear_scan_form

__all__ = ["diagonal_scan", "linear_scan"]

Array = np.ndarray[Any, Any]


def linear_scan(
    a: Array, b: Array, initial: Array | None, *, reset: Array | None, reverse: bool
) -> Array:
    """See ssmcore.linear_scan."""
    if 0 in b.shape:
        return b
    form = linear_scan_form(a, b, initial, reset)
    h: Array = linear.linear_scan(*form, reverse=reverse, threads=numba.get_num_threads())
    return h.reshape(b.shape)


def diagonal_scan(
    a: Array,
    B: Array,
    C: Array,
    u: Array,
    initial: Array | None,
    *,
    reset: Array | None,
    reverse: bool,
) -> tuple[Array, Array]:
    """See ssmcore.diagonal_scan."""
    form = diagonal_scan_form(a, u, initial, reset)
    run = mixing.diagonal_scan if a.ndim == 1 else diagonal.diagonal_scan
    y, last = run(a, B, C, *form, reverse=reverse, threads=numba.get_num_threads())
    return y.reshape(u.shape), last.reshape((*u.shape[:-2], *a.shape))

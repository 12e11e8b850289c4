"""Primitives of NumPy that run numba's kernels."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from ssmcore_numba import linear

from ssmcore.primitives.canonical import linear_scan_form

__all__ = ["linear_scan"]

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

"""Sizes that a compiler leaves open while it exports a program for any length."""

from __future__ import annotations

from ssmcore import arrays, backend
from ssmcore.typing import Array

__all__ = ["OPEN_BITS", "leading", "windows"]

OPEN_BITS = 31
"""Bits that a length may have."""


def leading(x: Array, length: int, axis: int = 0) -> Array:
    """Return the first ``length`` of ``x`` along ``axis``, whole where it has no more.

    Of a length that is left open by their numbers: a compiler would ask whether there are as many.
    """
    if not backend.is_open(x, length):
        where: list[slice] = [slice(None)] * x.ndim
        where[axis] = slice(length)
        return x[tuple(where)]
    index = arrays.arange(x, length, arrays.index_dtype(x))
    return arrays.namespace(x).take(x, index, axis=axis)


def windows(x: Array, axis: int, count: int, step: int, width: int) -> Array:
    """Return ``count`` windows (..., count, width, ...) of ``x``, each ``step`` after another.

    By their indices, as no compiler can tell that a length left open is a multiple; ``axis`` is
    negative.
    """
    steps = arrays.arange(x, count, arrays.index_dtype(x)) * step
    index = steps[:, None] + arrays.arange(x, width, arrays.index_dtype(x))
    return x[(..., index, *[slice(None)] * (-1 - axis))]

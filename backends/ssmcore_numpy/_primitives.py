"""Primitives of NumPy that run numba's kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from ssmcore_numba import diagonal, linear, mixing, selective
from ssmcore_numba._jobs import threads_allowed

from ssmcore.primitives import REFERENCES
from ssmcore.primitives.canonical import (
    diagonal_scan_form,
    fused,
    linear_scan_form,
    selective_scan_form,
)

__all__ = ["diagonal_scan", "linear_scan", "selective_scan"]

Array = np.ndarray[Any, Any]


def linear_scan(
    a: Array, b: Array, initial: Array | None, *, reset: Array | None, reverse: bool
) -> Array:
    """See ssmcore.linear_scan."""
    if 0 in b.shape:
        return b
    form = linear_scan_form(a, b, initial, reset)
    h: Array = linear.linear_scan(*form, reverse=reverse, threads=threads_allowed())
    return h.reshape(b.shape)


def diagonal_scan(
    a: Array,
    B: Array,
    C: Array,
    u: Array,
    initial: Array | None,
    *,
    D: Array | None = None,
    reset: Array | None,
    reverse: bool,
) -> tuple[Array, Array]:
    """See ssmcore.diagonal_scan."""
    form = diagonal_scan_form(a, u, initial, reset)
    run = mixing.diagonal_scan if a.ndim == 1 else diagonal.diagonal_scan
    y, last = run(a, B, C, D, *form, reverse=reverse, threads=threads_allowed())
    return y.reshape(u.shape), last.reshape((*u.shape[:-2], *a.shape))


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None,
    *,
    initial: Array | None,
    reset: Array | None,
) -> tuple[Array, Array]:
    """See ssmcore.selective_scan."""
    if not fused(u, A, B, C):
        run = REFERENCES["selective_scan"]
        found: tuple[Array, Array] = run(u, delta, A, B, C, D, initial=initial, reset=reset)
        return found
    form = selective_scan_form(u, delta, A, B, C, initial, reset)
    threads = threads_allowed()
    y, last, _ = selective.selective_scan(*form[:5], D, *form[5:], False, threads=threads)
    return y.reshape(u.shape), last.reshape((*u.shape[:-2], *A.shape))

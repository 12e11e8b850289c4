"""The one form in which native kernels take their arrays: leading axes flattened to rows.

Requirement this file obeys: everything here is differentiable and traceable in every library, so
that a kernel needs derivatives for its own form only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ssmcore import arrays
from ssmcore.typing import Array

__all__ = [
    "DiagonalScan",
    "LinearScan",
    "SelectiveScan",
    "diagonal_scan_form",
    "fused",
    "linear_scan_form",
    "selective_scan_form",
]


class LinearScan(NamedTuple):
    """The arguments of ``linear_scan`` by rows.

    a (R or 1, L or 1, P), b (R, L, P), start (R, P), all of one dtype; keep (R or 1, L) bool, False
    where the state restarts, or None.
    """

    a: Array
    b: Array
    start: Array
    keep: Array | None


def linear_scan_form(a: Array, b: Array, initial: Array | None, reset: Array | None) -> LinearScan:
    """Return the arguments of ``ssmcore.linear_scan`` by rows; nothing is copied needlessly."""
    xp = arrays.namespace(a, b)
    lead, (L, P) = b.shape[:-2], b.shape[-2:]
    a = xp.astype(a, b.dtype, copy=False)
    a = _rows(a if a.ndim > 1 else a[None, :], lead, (a.shape[-2] if a.ndim > 1 else 1, P))
    if initial is None:
        start = xp.zeros((math.prod(lead), P), dtype=b.dtype, device=arrays.device(b))
    else:
        start = xp.reshape(xp.astype(initial, b.dtype, copy=False), (math.prod(lead), P))
    keep = None if reset is None else _rows(~reset, lead, (L,))
    return LinearScan(a, xp.reshape(b, (math.prod(lead), L, P)), start, keep)


class DiagonalScan(NamedTuple):
    """What ``diagonal_scan`` runs over, by rows.

    u (R, L, H), state (R, P) or (R, H, N) of the dtype of ``a``; keep as in ``LinearScan``.
    """

    u: Array
    state: Array
    keep: Array | None


def diagonal_scan_form(
    a: Array, u: Array, initial: Array | None, reset: Array | None
) -> DiagonalScan:
    """Return input, state and resets of ``ssmcore.diagonal_scan`` by rows."""
    xp = arrays.namespace(a, u)
    lead, (L, H) = u.shape[:-2], u.shape[-2:]
    rows = math.prod(lead)
    if initial is None:
        initial = xp.zeros((rows, *a.shape), dtype=a.dtype, device=arrays.device(u))
    keep = None if reset is None else _rows(~reset, lead, (L,))
    state = xp.reshape(initial, (rows, *a.shape))
    return DiagonalScan(xp.reshape(u, (rows, L, H)), state, keep)


class SelectiveScan(NamedTuple):
    """What the fused ``selective_scan`` runs over, by rows.

    u, delta (R, L, H), A (H, N), B, C (R, L, N), start (R, H, N); keep as in ``LinearScan``, but
    (R, L).
    """

    u: Array
    delta: Array
    A: Array
    B: Array
    C: Array
    start: Array
    keep: Array | None


def fused(u: Array, A: Array, B: Array, C: Array) -> bool:
    """Whether a fused kernel takes these: A is real, B and C are shared by all channels."""
    return not arrays.is_complex(A) and B.ndim == C.ndim == u.ndim and 0 not in u.shape


def selective_scan_form(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    initial: Array | None,
    reset: Array | None,
) -> SelectiveScan:
    """Return the arguments of ``ssmcore.selective_scan`` by rows."""
    xp = arrays.namespace(u, A)
    lead, L = u.shape[:-2], u.shape[-2]
    rows = math.prod(lead)
    if initial is None:
        initial = xp.zeros((rows, *A.shape), dtype=A.dtype, device=arrays.device(u))
    keep = None if reset is None else xp.broadcast_to(_rows(~reset, lead, (L,)), (rows, L))
    flat = [xp.reshape(x, (rows, L, x.shape[-1])) for x in (u, delta, B, C)]
    start = xp.reshape(initial, (rows, *A.shape))
    return SelectiveScan(flat[0], flat[1], A, flat[2], flat[3], start, keep)


def _rows(x: Array, lead: tuple[int, ...], tail: tuple[int, ...]) -> Array:
    """Return ``x`` as (R, *tail), or as (1, *tail) where it is the same for all rows."""
    xp = arrays.namespace(x)
    own = x.shape[: x.ndim - len(tail)]
    if math.prod(own) == 1:
        return xp.broadcast_to(xp.reshape(x, (1, *x.shape[len(own) :])), (1, *tail))
    return xp.reshape(xp.broadcast_to(x, (*lead, *tail)), (math.prod(lead), *tail))

"""Rotary positions that count exactly for ever and begin again with every document.

Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021; pairs (i, i + n/2)
of the first n channels of a head, as in Griffin. A position is 1024 a + b: both parts stay small,
and the angle of 1024 steps is reduced on the host, so that float32 does not blur late positions.
"""

from __future__ import annotations

import math

from ssmcore import arrays, backend
from ssmcore._open import OPEN_BITS
from ssmcore.typing import Array

__all__ = ["UNIT", "carried", "latest_start", "steps_since_start", "turned"]

UNIT = 1024


def latest_start(reset: Array) -> Array:
    """Return the latest step up to each one at which a document begins, (..., L), or -1."""
    xp = arrays.namespace(reset)
    L = reset.shape[-1]
    time = arrays.arange(reset, L, xp.int32)
    start = xp.where(reset, time, -xp.ones_like(time))
    reach = 1
    if backend.is_open(reset, L):
        return _latest_of_many(start, time)
    while reach < L:
        none = -xp.ones_like(start[..., :reach])
        start = xp.maximum(start, xp.concat((none, start[..., :-reach]), axis=-1))
        reach *= 2
    return start


def _latest_of_many(start: Array, time: Array) -> Array:
    """Return the largest of ``start`` up to each step of a length that is left open."""
    xp = arrays.namespace(start)
    for k in range(OPEN_BITS):
        before = time - 2**k
        earlier = xp.take(start, xp.clip(before, min=0), axis=-1)
        start = xp.where(before >= 0, xp.maximum(start, earlier), start)
    return start


def carried(a: Array, b: Array) -> tuple[Array, Array]:
    """Return (a, b) with 0 <= b < 1024 and the same 1024 a + b."""
    whole = arrays.namespace(b).floor(b / UNIT)
    return a + whole, b - UNIT * whole


def steps_since_start(
    like: Array, length: int, position: Array | None, start: Array | None
) -> tuple[Array, Array]:
    """Return (a, b), each (..., L), of every step: steps since its document began.

    ``position`` (..., 2) is (a, b) of the first step, None for 0; ``start`` from ``latest_start``.
    """
    xp = arrays.namespace(like)
    b = arrays.arange(like, length, like.dtype)
    a = xp.zeros_like(b)
    if position is not None:
        a, b = a + position[..., 0:1], b + position[..., 1:2]
    if start is not None:
        since = arrays.arange(like, length, like.dtype) - xp.astype(start, like.dtype)
        a, b = xp.where(start < 0, a, xp.zeros_like(since)), xp.where(start < 0, b, since)
    return carried(a, b)


def turned(x: Array, a: Array, b: Array, channels: int, base: float) -> Array:
    """Return x (..., L, heads, E), its first ``channels`` turned by positions a, b."""
    xp, half = arrays.namespace(x), channels // 2
    rates = [base ** (-2.0 * i / channels) for i in range(half)]
    a, b = arrays.widen(a), arrays.widen(b)
    slow = arrays.like(a, [math.fmod(UNIT * rate, 2.0 * math.pi) for rate in rates])
    angle = a[..., None] * slow + b[..., None] * arrays.like(b, rates)
    cos = xp.astype(xp.cos(angle), x.dtype, copy=False)[..., None, :]
    sin = xp.astype(xp.sin(angle), x.dtype, copy=False)[..., None, :]
    one, two = x[..., :half], x[..., half:channels]
    parts = (one * cos - two * sin, two * cos + one * sin, x[..., channels:])
    return xp.concat(parts, axis=-1)

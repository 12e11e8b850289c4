"""Powers of a transition, accurate in float32 too.

A power a^l by repeated squaring inherits l/2 ulp, because every squaring doubles the relative
error made so far. At l = 4096 in float32 that is 1e-4 and would part the scan from the
recurrence, so powers are carried as unevaluated sums of two numbers ("double-float", Dekker 1971)
and rounded once. Products of matrices in that form are sums of plain products of slices, each of
so few bits that no product rounds (Ozaki, Ogita, Oishi, Rump 2012). float64 matrices need none of
this: 4096 of their ulp are 1e-12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from ssmcore import arrays, backend
from ssmcore._open import OPEN_BITS, leading
from ssmcore.typing import Array

__all__ = [
    "accurate_product",
    "add",
    "cayley",
    "factored_powers",
    "krylov",
    "matrix_squares",
    "multiply",
    "narrow",
    "powers",
    "squares",
]

FLOAT32_DIGITS = 24
DIGITS = 36
"""Bits a product must keep: 4096 units of 2^-36 are 6e-8."""

OPEN_SHIFT = 6
"""Bits of a length that is left open which are left to the fine table."""

Double: TypeAlias = tuple[Array, Array]
Wide: TypeAlias = tuple[Double, ...]
"""A real number (one Double) or a complex one (two)."""


def add(x: Double, y: Double, sign: float = 1.0) -> Double:
    """Return x + sign y."""
    s, e = arrays.two_sum(x[0], sign * y[0])
    return _renormalise(s, e + (x[1] + sign * y[1]))


def multiply(x: Double, y: Double) -> Double:
    """Return x y."""
    p, e = arrays.two_product(x[0], y[0])
    return _renormalise(p, e + (x[0] * y[1] + x[1] * y[0]))


def _renormalise(s: Array, e: Array) -> Double:
    high = s + e
    return high, e - (high - s)


def _square(x: Wide) -> Wide:
    """Return x^2; of a complex x = (r, i): ((r + i)(r - i), 2 r i)."""
    if len(x) == 1:
        return (multiply(x[0], x[0]),)
    r, i = x
    twice = 2.0 * r[0], 2.0 * r[1]
    return multiply(add(r, i), add(r, i, -1.0)), multiply(twice, i)


def _widen(a: Array) -> Wide:
    xp = arrays.namespace(a)
    parts = (xp.real(a), xp.imag(a)) if arrays.is_complex(a) else (a,)
    return tuple((part, xp.zeros_like(part)) for part in parts)


def _round(x: Wide) -> Array:
    return x[0][0] if len(x) == 1 else x[0][0] + x[1][0] * 1j


def squares(a: Array, count: int) -> Array:
    """Return a, a^2, a^4, ..., a^(2^(count-1)) on a new first axis, each correct to about one ulp.

    Examples
    --------
    >>> import numpy as np
    >>> squares(np.asarray([0.5]), 3)[:, 0]
    array([0.5   , 0.25  , 0.0625])
    """
    wide = _widen(a)
    ticks = arrays.arange(wide[0][0], count, wide[0][0].dtype)

    def square(x: Wide, _: object) -> tuple[Wide, Array]:
        return _square(x), _round(x)

    return backend.of(a).fold(square, wide, {"tick": ticks})[1]


def powers(a: Array, length: int) -> Array:
    """Return a^0, a^1, ..., a^(length-1) on a new first axis.

    A product of two tables built by doubling from ``squares``; the relative error is at most
    about 2 log2(length) ulp.

    Parameters
    ----------
    a : (...) float32, float64, complex64 or complex128
    length : int

    Returns
    -------
    (length, ...), dtype of ``a``.

    Examples
    --------
    >>> import numpy as np
    >>> powers(np.asarray([2.0]), 4)[:, 0]
    array([1., 2., 4., 8.])
    """
    if not backend.is_open(a, length) and length < 2:
        xp = arrays.namespace(a)
        return xp.ones((length, *a.shape), dtype=a.dtype, device=arrays.device(a))
    coarse, fine = factored_powers(a, length)
    table = coarse[:, None, ...] * fine[None, ...]
    return leading(arrays.namespace(a).reshape(table, (-1, *a.shape)), length)


def factored_powers(a: Array, length: int) -> tuple[Array, Array]:
    """Return (coarse, fine) with a^(q m + r) = coarse[q] fine[r], q m + r covering 0..length-1.

    Shapes (Q, ...) and (m, ...), m the power of two near sqrt(length); length at least 1. Of a
    length that is left open, m is 64; coarse has more than one step, so that no
    compiler broadcasts it.
    """
    if backend.is_open(a, length):
        levels = _open_squares(a)
        coarse = _open_table(levels, OPEN_SHIFT, length // (1 << OPEN_SHIFT) + 2)
        return coarse, _table(levels, range(OPEN_SHIFT), 1 << OPEN_SHIFT)
    bits = (length - 1).bit_length()
    shift = (bits + 1) // 2
    levels = squares(a, bits + 1)
    fine = _table(levels, range(shift), 1 << shift)
    return _table(levels, range(shift, bits), -(-length // (1 << shift))), fine


def _table(levels: Array, used: range, length: int) -> Array:
    """Return the product of levels[k] over the bits set in 0, 1, ..., length-1, bit 0 first."""
    xp = arrays.namespace(levels)
    table = xp.ones_like(levels[:1, ...])
    for k in used:
        table = xp.concat((table, table * levels[k, ...]), axis=0)
    return table[:length, ...]


def _open_squares(a: Array) -> Array:
    """Return ``squares`` for every bit of a length that is left open, in few operations.

    Plain squares in float64: a^l has l / 2 of its ulp.
    """
    xp, wide = arrays.namespace(a), arrays.widen(a)
    if wide.dtype in (xp.float32, xp.complex64):
        return squares(a, OPEN_BITS)
    levels = [wide]
    while len(levels) < OPEN_BITS:
        levels.append(levels[-1] * levels[-1])
    return xp.astype(xp.stack(levels), a.dtype, copy=False)


def _open_table(levels: Array, first: int, length: int) -> Array:
    """Return the same of all levels from the ``first`` on, for a length that is left open."""
    xp = arrays.namespace(levels)
    counts = arrays.arange(levels, length, xp.int32)
    counts = xp.reshape(counts, (-1, *([1] * (levels.ndim - 1))))
    table = xp.ones_like(levels[:1, ...])
    for k in range(first, levels.shape[0]):
        bit = counts // 2 ** (k - first) % 2 == 1
        table = xp.where(bit, table * levels[k, ...], table)
    return table


def narrow(x: Array) -> bool:
    """Whether ``x`` is float32, in which plain sums and products of matrices lose too much."""
    return bool(x.dtype == arrays.namespace(x).float32)


def _slices(x: Double, axis: int, digits: int) -> list[Array]:
    """Return float32 matrices adding up to ``x`` within 2^-digits of the maxima along ``axis``.

    ``axis`` is the one a product sums over. All slices of one row (column) are whole multiples of
    one unit each, and so small that the product of any two is exact. Adding and subtracting a
    large number rounds to the unit; the first slice takes the whole derivative. The large number
    has none, because it comes out of a ``floor``.
    """
    xp = arrays.namespace(x[0])
    bits = (FLOAT32_DIGITS - (x[0].shape[axis] - 1).bit_length()) // 2
    largest = xp.max(xp.abs(x[0]), axis=axis, keepdims=True)
    exponent = xp.floor(xp.log2(xp.where(largest > 0, largest, xp.ones_like(largest)))) + 1.0
    anchor = 1.5 * xp.exp(math.log(2.0) * (exponent + (FLOAT32_DIGITS - 1 - bits)))
    rest, out = x[0], []
    for k in range(math.ceil(digits / (bits + 1))):
        rest = rest + x[1] if k == 2 else rest  # no longer rounds away what the low part says
        large = anchor * 0.5 ** (k * (bits + 1))
        part = (rest + large) - large
        rest = rest - part
        out.append(part)
    return out


def _sliced_product(left: list[Array], right: list[Array]) -> Double:
    """Return the product of two sliced matrices without what is below their last slices."""
    total: Double | None = None
    for k in range(len(left)):
        for i in range(k + 1):
            part = left[i] @ right[k - i]
            if total is None:
                total = part, arrays.namespace(part).zeros_like(part)
            else:
                s, e = arrays.two_sum(total[0], part)
                total = _renormalise(s, e + total[1])
    assert total is not None
    return total


def accurate_product(A: Array) -> Callable[[Array], Double]:
    """Return x -> A x as an unevaluated sum of two float32 arrays, for A (..., N, N) float32.

    What depends on ``A`` alone is done once.
    """
    zeros = arrays.namespace(A).zeros_like
    left = _slices((A, zeros(A)), -1, DIGITS)

    def apply(x: Array) -> Double:
        column = x[..., None]
        right = _slices((column, zeros(column)), -2, DIGITS)
        high, low = _sliced_product(left, right)
        return high[..., 0], low[..., 0]

    return apply


def cayley(X: Double) -> tuple[Double, Array]:
    """Return (I - X)^-1 (I + X) of float32 matrices (..., N, N), and the inverse, rounded.

    The inverse is corrected once by what it leaves of I (Newton), which squares its error.
    """
    xp = arrays.namespace(X[0])
    eye = xp.eye(X[0].shape[-1], dtype=X[0].dtype, device=arrays.device(X[0]))
    eye = eye + 0.0 * X[0]  # two_sum takes no constants
    one = eye, xp.zeros_like(eye)
    inner = add(one, X, -1.0)
    inverse = xp.linalg.inv(inner[0])
    columns = _slices((inverse, xp.zeros_like(inverse)), -2, DIGITS)
    left = add(one, _sliced_product(_slices(inner, -1, DIGITS), columns), -1.0)
    high, low = _renormalise(inverse, inverse @ (left[0] + left[1]))
    return add((2.0 * high, 2.0 * low), one, -1.0), high


def matrix_squares(A: Array, count: int, low: Array | None = None) -> list[Array]:
    """Return [A, A^2, A^4, ...] of real matrices (..., N, N): ``count`` of them.

    In float32 each is correct to about one ulp of its largest entries, and they are those of
    A + ``low``.
    """
    if narrow(A) and count > 1:
        return _narrow_squares(
            (A, arrays.namespace(A).zeros_like(A) if low is None else low), count
        )
    out = [A][:count]
    while len(out) < count:
        out.append(out[-1] @ out[-1])
    return out


def _narrow_squares(A: Double, count: int) -> list[Array]:
    def square(x: Double, _: object) -> tuple[Double, Array]:
        x = _sliced_product(_slices(x, -1, DIGITS), _slices(x, -2, DIGITS))
        return x, x[0]

    ticks = {"tick": arrays.arange(A[0], count - 1, A[0].dtype)}
    _, levels = backend.of(A[0]).fold(square, A, ticks)
    return [A[0], *(levels[k, ...] for k in range(count - 1))]


def krylov(A: Array, B: Array, length: int) -> Array:
    """Return B, A B, ..., A^(length-1) B on a new last axis, by doubling.

    Parameters
    ----------
    A : (..., N, N) real
    B : (..., N) real, same dtype
    length : at least 1

    Returns
    -------
    (..., N, length), same dtype.

    Notes
    -----
    Cost O(N^2 (N log length + length)).
    """
    xp = arrays.namespace(A, B)
    columns = B[..., None]
    for square in matrix_squares(A, (length - 1).bit_length()):
        columns = xp.concat((columns, square @ columns), axis=-1)
    return columns[..., :length]

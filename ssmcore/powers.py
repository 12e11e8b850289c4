"""Powers of a transition: accurate for scalars, by doubling for matrices.

A power a^l by repeated squaring inherits l/2 ulp, because every squaring doubles the relative
error made so far. At l = 4096 in float32 that is 1e-4 and would part the scan from the
recurrence, so the powers of a diagonal are carried as unevaluated sums of two numbers
("double-float", Dekker 1971) and rounded once.
"""

from __future__ import annotations

from typing import TypeAlias

from ssmcore import arrays, backend
from ssmcore.typing import Array

__all__ = ["factored_powers", "krylov", "matrix_squares", "powers", "squares"]

Double: TypeAlias = tuple[Array, Array]
Wide: TypeAlias = tuple[Double, ...]
"""A real number (one Double) or a complex one (two)."""


def _add(x: Double, y: Double, sign: float = 1.0) -> Double:
    s, e = arrays.two_sum(x[0], sign * y[0])
    return _renormalise(s, e + (x[1] + sign * y[1]))


def _multiply_double(x: Double, y: Double) -> Double:
    p, e = arrays.two_product(x[0], y[0])
    return _renormalise(p, e + (x[0] * y[1] + x[1] * y[0]))


def _renormalise(s: Array, e: Array) -> Double:
    high = s + e
    return high, e - (high - s)


def _multiply(x: Wide, y: Wide) -> Wide:
    if len(x) == 1:
        return (_multiply_double(x[0], y[0]),)
    (xr, xi), (yr, yi) = x, y
    real = _add(_multiply_double(xr, yr), _multiply_double(xi, yi), -1.0)
    return real, _add(_multiply_double(xr, yi), _multiply_double(xi, yr))


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
        return _multiply(x, x), _round(x)

    return backend.of(a).fold(square, wide, {"tick": ticks})[1]


def powers(a: Array, length: int) -> Array:
    """Return a^0, a^1, ..., a^(length-1) on a new first axis.

    Built by doubling from ``squares``; the relative error is at most about 2 log2(length) ulp.

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
    xp = arrays.namespace(a)
    table = xp.ones((1, *a.shape), dtype=a.dtype, device=arrays.device(a))
    if length < 2:
        return table[:length, ...]
    levels = squares(a, (length - 1).bit_length())
    for k in range(levels.shape[0]):
        table = xp.concat((table, table * levels[k, ...]), axis=0)
    return table[:length, ...]


def factored_powers(a: Array, length: int) -> tuple[Array, Array]:
    """Return (coarse, fine) with a^(q m + r) = coarse[q] fine[r], q m + r covering 0..length-1.

    Shapes (Q, ...) and (m, ...), m the power of two near sqrt(length); length at least 1.
    """
    shift = ((length - 1).bit_length() + 1) // 2
    fine = powers(a, 1 << shift)
    base = squares(a, shift + 1)[shift, ...]
    return powers(base, -(-length // (1 << shift))), fine


def matrix_squares(A: Array, count: int) -> list[Array]:
    """Return [A, A^2, A^4, ...] of matrices (..., N, N): ``count`` of them."""
    out = [A][:count]
    while len(out) < count:
        out.append(out[-1] @ out[-1])
    return out


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

"""Reference kernel generation in the array API standard: products of factored powers."""

from __future__ import annotations

from ssmcore import arrays, powers
from ssmcore._open import leading
from ssmcore.typing import Array

__all__ = ["bilinear_real", "diagonal_kernel", "dplr_kernel", "real_dplr"]


def diagonal_kernel(a: Array, coefficients: Array, length: int) -> Array:
    """See ssmcore.diagonal_kernel."""
    xp = arrays.namespace(a, coefficients)
    if length == 0:
        real = arrays.real_dtype(xp, a.dtype)
        return xp.zeros((0, a.shape[0]), dtype=real, device=arrays.device(a))
    coarse, fine = powers.factored_powers(a, length)
    rows = xp.permute_dims(coefficients * coarse, (1, 0, 2))
    columns = xp.permute_dims(fine, (1, 2, 0))
    K = xp.matrix_transpose(xp.reshape(rows @ columns, (a.shape[0], -1)))
    return leading(xp.real(K) if arrays.is_complex(K) else K, length)


def dplr_kernel(dt: Array, Lambda: Array, P: Array, B: Array, C: Array, length: int) -> Array:
    """See ssmcore.dplr_kernel.

    C A^(q m + r) B is row q of C, C A^m, C A^(2 m), ... times column r of B, A B, ..., A^(m-1) B,
    with m near sqrt(L); both are made by doubling.
    """
    xp = arrays.namespace(dt, Lambda, P, B, C)
    if length == 0:
        return xp.zeros((0, dt.shape[0]), dtype=dt.dtype, device=arrays.device(dt))
    real = dt.dtype
    dt, Lambda, P, B, C = map(arrays.widen, (dt, Lambda, P, B, C))
    A_bar, low, gain = _transition(dt, Lambda, P)
    columns = gain @ xp.concat((xp.real(B), xp.imag(B)), axis=-1)[..., None]
    rows = 2.0 * xp.concat((xp.real(C), -xp.imag(C)), axis=-1)[:, None, :]
    bits = (length - 1).bit_length()
    for k, power in enumerate(powers.matrix_squares(A_bar, bits, low)):
        if k < bits // 2:
            columns = xp.concat((columns, power @ columns), axis=-1)
        else:
            rows = xp.concat((rows, rows @ power), axis=-2)
    count = -(-length // columns.shape[-1])
    K = rows[:, :count, :] @ columns
    K = xp.reshape(K, (K.shape[0], count * K.shape[-1]))[:, :length]
    return xp.matrix_transpose(xp.astype(K, real, copy=False))


def _transition(dt: Array, Lambda: Array, P: Array) -> tuple[Array, Array | None, Array]:
    """Return A_bar, in float32 what it was rounded by, and (I - dt/2 A)^-1 dt.

    An error of A_bar grows with its power, that of rounding Lambda dt alone too.
    """
    if not powers.narrow(dt):
        A_bar, gain = bilinear_real(real_dplr(Lambda, P), dt)
        return A_bar, None, gain
    xp = arrays.namespace(dt, Lambda, P)
    A = _real_diagonal(Lambda)
    exact, factors = (A, xp.zeros_like(A)), _real_factors(P)
    for k in range(P.shape[0]):
        left, right = factors[:, :, None, k], factors[:, None, :, k]
        exact = powers.add(exact, arrays.two_product(-2.0 * left, right))
    half = 0.5 * dt[:, None, None]
    (A_bar, low), inverse = powers.cayley(powers.multiply(exact, (half, xp.zeros_like(half))))
    return A_bar, low, inverse * dt[:, None, None]


def real_dplr(Lambda: Array, P: Array) -> Array:
    """Return A = diag(Lambda) - P P* of a half spectrum as a real matrix on (Re x, Im x).

    x' = Lambda x - 2 P Re(P* x), because the other half of the pairs is the conjugate.
    Lambda (H, N), P (r, H, N) complex; returns (H, 2N, 2N) real.
    """
    factors = _real_factors(P)
    lowered = factors @ arrays.namespace(P).matrix_transpose(factors)
    return _real_diagonal(Lambda) - 2.0 * lowered


def _real_diagonal(Lambda: Array) -> Array:
    """Return diag(Lambda) as real matrices (H, 2N, 2N)."""
    xp = arrays.namespace(Lambda)
    eye = xp.eye(Lambda.shape[-1], dtype=xp.real(Lambda).dtype, device=arrays.device(Lambda))
    re, im = eye * xp.real(Lambda)[..., None], eye * xp.imag(Lambda)[..., None]
    return xp.concat((xp.concat((re, -im), axis=-1), xp.concat((im, re), axis=-1)), axis=-2)


def _real_factors(P: Array) -> Array:
    """Return Re P over Im P as columns (H, 2N, r)."""
    xp = arrays.namespace(P)
    return xp.permute_dims(xp.concat((xp.real(P), xp.imag(P)), axis=-1), (1, 2, 0))


def bilinear_real(A: Array, dt: Array) -> tuple[Array, Array]:
    """Return ((I - dt/2 A)^-1 (I + dt/2 A), (I - dt/2 A)^-1 dt) for A (H, N, N), dt (H)."""
    xp = arrays.namespace(A, dt)
    eye = xp.eye(A.shape[-1], dtype=A.dtype, device=arrays.device(A))
    half = 0.5 * dt[:, None, None] * A
    inverse = xp.linalg.inv(eye - half)
    return inverse @ (eye + half), inverse * dt[:, None, None]

"""Kernels of diagonal-plus-low-rank systems by powers of their matrices, in float64.

C A^(q m + r) B is row q of C, C A^m, C A^(2 m), ... times column r of B, A B, ..., A^(m-1) B, with
m near sqrt(L); both are made by doubling, with the squares of A that C (I - A^L) of the generating
function takes as well. What is left is one product of matrices, which costs less than sums over
poles and an inverse FFT, and loses nothing near the poles. In float32 it would lose: an error in A
grows with its power. So this is for devices whose float64 is not slow.
"""

from __future__ import annotations

from ssmcore import arrays
from ssmcore.primitives._reference_kernel import bilinear_real, real_dplr
from ssmcore.typing import Array

__all__ = ["dplr_kernel"]


def dplr_kernel(dt: Array, Lambda: Array, P: Array, B: Array, C: Array, length: int) -> Array:
    """See ssmcore.dplr_kernel; O(H (N^2 + N sqrt(length) + length)) memory."""
    xp = arrays.namespace(dt, Lambda, P, B, C)
    if length == 0:
        return xp.zeros((0, dt.shape[0]), dtype=dt.dtype, device=arrays.device(dt))
    real = dt.dtype
    dt, Lambda, P, B, C = map(arrays.widen, (dt, Lambda, P, B, C))
    power, gain = bilinear_real(real_dplr(Lambda, P), dt)
    columns = gain @ xp.concat((xp.real(B), xp.imag(B)), axis=-1)[..., None]
    rows = 2.0 * xp.concat((xp.real(C), -xp.imag(C)), axis=-1)[:, None, :]
    bits = (length - 1).bit_length()
    for k in range(bits):
        power = power @ power if k > 0 else power
        if k < bits // 2:
            columns = xp.concat((columns, power @ columns), axis=-1)
        else:
            rows = xp.concat((rows, rows @ power), axis=-2)
    count = -(-length // columns.shape[-1])
    K = rows[:, :count, :] @ columns
    K = xp.reshape(K, (K.shape[0], count * K.shape[-1]))
    return xp.matrix_transpose(xp.astype(K[:, :length], real, copy=False))

"""The generating function of a diagonal-plus-low-rank kernel, on which GPUs run S4's Algorithm 1.

K^(omega) = sum_l K_l omega^l = C~ (I - A_bar omega)^-1 B_bar at nodes omega on a circle inside the
unit one, by Cauchy sums over the poles and the Woodbury identity; C~ = C (I - (rho A_bar)^L).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ssmcore import arrays, powers
from ssmcore.primitives._reference_kernel import bilinear_real, real_dplr
from ssmcore.typing import Array

__all__ = ["RADIUS", "cauchy_sums", "dplr_kernel", "hermitian", "nodes", "truncated_output"]

RADIUS = 2.0
"""-log of the nodes' radius to the power L. All poles lie on or outside the unit circle, hence at
least RADIUS / L away from the nodes, however slowly a state forgets; taps lose e^RADIUS at most."""


def truncated_output(dt: Array, Lambda: Array, P: Array, C: Array, length: int) -> Array:
    """Return C (I - (rho A_bar)^L), so that a length-L transform sees the first L taps only."""
    xp = arrays.namespace(Lambda)
    n = Lambda.shape[-1]
    A_bar, _ = bilinear_real(real_dplr(Lambda, P), dt)
    row = xp.concat((xp.real(C), -xp.imag(C)), axis=-1)[:, None, :]
    power = row * math.exp(-RADIUS)
    for level, square in enumerate(powers.matrix_squares(A_bar, length.bit_length())):
        if length >> level & 1:
            power = power @ square
    rest = (row - power)[:, 0, :]
    return rest[:, :n] - rest[:, n:] * 1j


def nodes(real: Array, length: int) -> tuple[Array, Array]:
    """Return 1 - omega and (1 + omega) / 2 for omega_j = rho e^(-2 pi i j / L), j up to L / 2."""
    exponent = (-RADIUS - 2j * math.pi * np.arange(length // 2 + 1)) / length
    found = -np.expm1(exponent), (1.0 + np.exp(exponent)) / 2.0
    one, half = (arrays.like(real, z.real) + arrays.like(real, z.imag) * 1j for z in found)
    return one, half


def cauchy_sums(z: Array, c: Array, x: Array, v: Array) -> Array:
    """Return sum_n v_n / (z - c x_n) + conj(v_n) / (z - c conj(x_n)), (H, F, S).

    z, c (F,) at the nodes, poles x (H, N), numerators v (H, N, S), all complex.
    """
    z, c, x = z[:, None], c[:, None], x[:, None, :]
    resolvent, twin = 1.0 / (z - c * x), 1.0 / (z - c * arrays.conj(x))
    return resolvent @ v + twin @ arrays.conj(v)


def dplr_kernel(
    dt: Array,
    Lambda: Array,
    P: Array,
    B: Array,
    C: Array,
    length: int,
    sums: Callable[..., Array] = cauchy_sums,
) -> Array:
    """See ssmcore.dplr_kernel; length from 1, ``sums`` stands in for ``cauchy_sums``."""
    xp = arrays.namespace(dt, Lambda, P, B, C)
    one, half = nodes(dt, length)
    C_tilde = truncated_output(dt, Lambda, P, C, length)
    left = xp.concat((C_tilde[None, ...], arrays.conj(P)), axis=0)
    right = xp.concat((B[None, ...], P), axis=0)
    pairs = xp.permute_dims(left[:, None, ...] * right[None, ...], (2, 3, 0, 1))
    flat = xp.reshape(pairs, (*pairs.shape[:2], -1))
    products = sums(one, half, dt[:, None] * Lambda, flat)
    r = dt[:, None, None, None] * xp.reshape(products, (*products.shape[:2], *pairs.shape[2:]))
    K_hat = _without_low_rank(r, half[None, :, None, None])
    scale = arrays.like(dt, np.exp(RADIUS * np.arange(length) / length))
    return xp.matrix_transpose(scale * xp.fft.irfft(hermitian(K_hat, length), n=length, axis=-1))


def _without_low_rank(r: Array, half: Array) -> Array:
    """Return r_00 - h r_01 (I + h r_11)^-1 r_10, h = (1 + omega) / 2, one rank at a time.

    Sherman-Morrison. Inside the unit circle A - z is dissipative, with any part of the low rank:
    each 1 + h r_kk has a real part of at least 1, so nothing is lost by dividing.
    """
    while r.shape[-1] > 1:
        column, row = r[..., :-1, -1:], r[..., -1:, :-1]
        r = r[..., :-1, :-1] - half * column * row / (1.0 + half * r[..., -1:, -1:])
    return r[..., 0, 0]


def hermitian(K_hat: Array, length: int) -> Array:
    """Return half a spectrum (..., L // 2 + 1) without rounding in its imaginary ends."""
    xp = arrays.namespace(K_hat)
    self_conjugate = 2 * np.arange(length // 2 + 1) % length == 0
    keep = arrays.like(xp.real(K_hat), np.where(self_conjugate, 0.0, 1.0))
    return xp.real(K_hat) + keep * xp.imag(K_hat) * 1j

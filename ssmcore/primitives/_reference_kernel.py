"""Reference kernel generation in the array API standard: Vandermonde and Cauchy reductions."""

from __future__ import annotations

import math

import numpy as np

from ssmcore import arrays, powers
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
    K = xp.reshape(rows @ columns, (a.shape[0], -1))[:, :length]
    return xp.matrix_transpose(xp.real(K) if arrays.is_complex(K) else K)


def real_dplr(Lambda: Array, P: Array) -> Array:
    """Return A = diag(Lambda) - P P* of a half spectrum as a real matrix on (Re x, Im x).

    x' = Lambda x - 2 P Re(P* x), because the other half of the pairs is the conjugate.
    Lambda (H, N), P (r, H, N) complex; returns (H, 2N, 2N) real.
    """
    xp = arrays.namespace(Lambda, P)
    n = Lambda.shape[-1]
    eye = xp.eye(n, dtype=xp.real(Lambda).dtype, device=arrays.device(Lambda))
    re, im = eye * xp.real(Lambda)[..., None], eye * xp.imag(Lambda)[..., None]
    rows = xp.concat((xp.concat((re, -im), axis=-1), xp.concat((im, re), axis=-1)), axis=-2)
    stacked = xp.concat((xp.real(P), xp.imag(P)), axis=-1)
    factors = xp.permute_dims(stacked, (1, 2, 0))
    return rows - 2.0 * (factors @ xp.matrix_transpose(factors))


def bilinear_real(A: Array, dt: Array) -> tuple[Array, Array]:
    """Return ((I - dt/2 A)^-1 (I + dt/2 A), (I - dt/2 A)^-1 dt) for A (H, N, N), dt (H)."""
    xp = arrays.namespace(A, dt)
    eye = xp.eye(A.shape[-1], dtype=A.dtype, device=arrays.device(A))
    half = 0.5 * dt[:, None, None] * A
    inverse = xp.linalg.inv(eye - half)
    return inverse @ (eye + half), inverse * dt[:, None, None]


def _truncated_output(dt: Array, Lambda: Array, P: Array, C: Array, length: int) -> Array:
    """Return C (I - A_bar^L), so that a length-L transform sees the first L taps only."""
    xp = arrays.namespace(Lambda)
    n = Lambda.shape[-1]
    A_bar, _ = bilinear_real(real_dplr(Lambda, P), dt)
    row = xp.concat((xp.real(C), -xp.imag(C)), axis=-1)[:, None, :]
    power = row
    for level, square in enumerate(powers.matrix_squares(A_bar, length.bit_length())):
        if length >> level & 1:
            power = power @ square
    rest = (row - power)[:, 0, :]
    return rest[:, :n] - rest[:, n:] * 1j


def _resolvents(dt_Lambda: Array, length: int) -> tuple[Array, Array, Array]:
    """Return 1 / (2i s - c dt Lambda) and its conjugate-pair twin (H, J, N), and c + is (J).

    The nodes are omega_j = exp(-2 pi i j / L) = exp(-2i theta_j), c = cos theta, s = sin theta.
    With z = 2 (1 - omega) / (1 + omega) = 2i s / c both sides are multiplied by c, so that
    omega = -1 (c = 0) is a node like any other.
    """
    theta = math.pi * np.arange(length // 2 + 1) / length
    cosine = np.where(2 * np.arange(length // 2 + 1) == length, 0.0, np.cos(theta))
    real = arrays.namespace(dt_Lambda).real(dt_Lambda)
    c, s = arrays.like(real, cosine), arrays.like(real, np.sin(theta))
    scaled, node = c[:, None] * dt_Lambda[:, None, :], (s * 2j)[:, None]
    conjugate = arrays.conj(scaled)
    return 1.0 / (node - scaled), 1.0 / (node - conjugate), c + s * 1j


def dplr_kernel(dt: Array, Lambda: Array, P: Array, B: Array, C: Array, length: int) -> Array:
    """See ssmcore.dplr_kernel."""
    xp = arrays.namespace(dt, Lambda, P, B, C)
    if length == 0:
        return xp.zeros((0, dt.shape[0]), dtype=dt.dtype, device=arrays.device(dt))
    rank = P.shape[0]
    resolvent, twin, phase = _resolvents(dt[:, None] * Lambda, length)
    C_tilde = _truncated_output(dt, Lambda, P, C, length)
    left = xp.concat((C_tilde[None, ...], arrays.conj(P)), axis=0)
    right = xp.concat((B[None, ...], P), axis=0)
    pairs = xp.permute_dims(left[:, None, ...] * right[None, ...], (2, 3, 0, 1))
    flat = xp.reshape(pairs, (*pairs.shape[:2], -1))
    sums = resolvent @ flat + twin @ arrays.conj(flat)
    r = dt[:, None, None, None] * xp.reshape(sums, (*sums.shape[:2], rank + 1, rank + 1))
    K_hat = r[:, :, 0, 0]
    if rank:
        c = xp.real(phase)[None, :, None, None]
        eye = xp.eye(rank, dtype=r.dtype, device=arrays.device(r))
        solved = xp.linalg.solve(eye + c * r[:, :, 1:, 1:], c * r[:, :, 1:, :1])
        K_hat = K_hat - (r[:, :, :1, 1:] @ solved)[:, :, 0, 0]
    K_hat = K_hat * phase
    self_conjugate = 2 * np.arange(length // 2 + 1) % length == 0
    keep = arrays.like(dt, np.where(self_conjugate, 0.0, 1.0))
    K_hat = xp.real(K_hat) + keep * xp.imag(K_hat) * 1j
    return xp.matrix_transpose(xp.fft.irfft(K_hat, n=length, axis=-1))

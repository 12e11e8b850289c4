"""Naive sequential NumPy loops for every primitive, in float64 or complex128.

Nothing is shared with the library. ``modulus=True`` runs the same loop on the moduli: the growth
that the tolerances need.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = [
    "causal_convolution",
    "diagonal_kernel",
    "diagonal_scan",
    "dplr_kernel",
    "dplr_matrices",
    "linear_scan",
    "selective_scan",
    "short_convolution",
]

Numbers = np.ndarray[Any, Any]


def _wide(x: Any, modulus: bool = False) -> Numbers:
    """Return ``x`` in float64 or complex128, or its modulus."""
    x = np.asarray(x)
    wide: Numbers = x.astype(np.result_type(x.dtype, np.float64))
    return np.abs(wide) if modulus else wide


def linear_scan(
    a: Any,
    b: Any,
    initial: Any = None,
    *,
    reset: Any = None,
    reverse: bool = False,
    modulus: bool = False,
) -> Numbers:
    """h_t = a_t h_{t-1} + b_t."""
    a, b = _wide(a, modulus), _wide(b, modulus)
    length = b.shape[-2]
    dtype = np.result_type(a, b)
    a = np.broadcast_to(a, b.shape)
    h = np.zeros((*b.shape[:-2], b.shape[-1]), dtype)
    h = h if initial is None else _wide(initial, modulus).astype(dtype)
    restart = np.broadcast_to(False if reset is None else reset, b.shape[:-1])
    out = np.zeros(b.shape, dtype)
    for t in reversed(range(length)) if reverse else range(length):
        h = np.where(restart[..., t, None], 0.0, h)
        h = a[..., t, :] * h + b[..., t, :]
        out[..., t, :] = h
    return out


def diagonal_scan(
    a: Any,
    B: Any,
    C: Any,
    u: Any,
    initial: Any = None,
    *,
    D: Any = None,
    reset: Any = None,
    reverse: bool = False,
    modulus: bool = False,
) -> tuple[Numbers, Numbers]:
    """x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) + D u_t; returns y and the last state."""
    a, B, C, u = (_wide(x, modulus) for x in (a, B, C, u))
    dtype = np.result_type(a, B)
    x = np.zeros((*u.shape[:-2], *a.shape), dtype)
    x = x if initial is None else _wide(initial, modulus).astype(dtype)
    restart = np.broadcast_to(False if reset is None else reset, u.shape[:-1])
    y = np.zeros(u.shape)
    length = u.shape[-2]
    for t in reversed(range(length)) if reverse else range(length):
        mask = restart[..., t].reshape(restart.shape[:-1] + (1,) * a.ndim)
        x = np.where(mask, 0.0, x)
        drive = B * u[..., t, :, None] if a.ndim == 2 else u[..., t, :] @ B.T
        x = a * x + drive
        y[..., t, :] = np.real((C * x).sum(axis=-1) if a.ndim == 2 else x @ C.T)
        if D is not None:
            y[..., t, :] += _wide(D, modulus) * u[..., t, :]
    return y, x


def selective_scan(
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any = None,
    *,
    initial: Any = None,
    reset: Any = None,
    modulus: bool = False,
) -> tuple[Numbers, Numbers]:
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t (2 Re if complex)."""
    decay = _wide(A).real if modulus else _wide(A)
    u, delta, B, C = (_wide(x, modulus) for x in (u, delta, B, C))
    full = (*u.shape, A.shape[-1])
    twice = 2.0 if any(np.iscomplexobj(x) for x in (A, B)) or np.iscomplexobj(initial) else 1.0
    B = np.broadcast_to(B if B.ndim == len(full) else B[..., None, :], full)
    C = np.broadcast_to(C if C.ndim == len(full) else C[..., None, :], full)
    h = np.zeros((*u.shape[:-2], *A.shape), np.result_type(decay, B))
    h = h if initial is None else _wide(initial, modulus).astype(h.dtype)
    restart = np.broadcast_to(False if reset is None else reset, u.shape[:-1])
    y = np.zeros(u.shape)
    for t in range(u.shape[-2]):
        h = np.where(restart[..., t, None, None], 0.0, h)
        step = delta[..., t, :, None]
        h = np.exp(step * decay) * h + step * B[..., t, :, :] * u[..., t, :, None]
        y[..., t, :] = twice * np.real((C[..., t, :, :] * h).sum(axis=-1))
    return (y if D is None else y + _wide(D, modulus) * u), h


def causal_convolution(u: Any, kernel: Any) -> Numbers:
    """y_t = sum_{s <= t} kernel_s u_{t-s}."""
    u, kernel = _wide(u), _wide(kernel)
    y = np.zeros(u.shape, np.result_type(u, kernel))
    length = u.shape[-2]
    for s in range(min(length, kernel.shape[-2])):
        y[..., s:, :] += kernel[..., s, None, :] * u[..., : length - s, :]
    return y


def short_convolution(
    u: Any, weight: Any, bias: Any = None, state: Any = None, *, modulus: bool = False
) -> tuple[Numbers, Numbers]:
    """y_t = bias + sum_k weight_k u_{t-K+1+k}; returns y and the last K-1 inputs."""
    u, weight = _wide(u, modulus), _wide(weight, modulus)
    taps = weight.shape[0]
    before = np.zeros((*u.shape[:-2], taps - 1, u.shape[-1]))
    window = before if state is None else _wide(state, modulus)
    y = np.zeros(u.shape)
    for t in range(u.shape[-2]):
        window = np.concatenate([window, u[..., t : t + 1, :]], axis=-2)
        for k in range(taps):
            y[..., t, :] += weight[k] * window[..., k, :]
        window = window[..., 1:, :]
    return (y if bias is None else y + _wide(bias, modulus)), window


def diagonal_kernel(a: Any, coefficients: Any, length: int, *, modulus: bool = False) -> Numbers:
    """K_l = Re(sum_n coefficients_n a_n^l)."""
    a, term = _wide(a, modulus), _wide(coefficients, modulus)
    kernel = np.zeros((length, a.shape[0]))
    for position in range(length):
        kernel[position] = np.real(term.sum(axis=-1))
        term = term * a
    return kernel


def dplr_matrices(dt: Any, Lambda: Any, P: Any, B: Any) -> tuple[Numbers, Numbers]:
    """A_bar (H, 2N, 2N), B_bar (H, 2N) of A = diag(Lambda) - P P* on all conjugate states."""
    dt, Lambda, P, B = (_wide(x) for x in (dt, Lambda, P, B))
    Lambda, P, B = (np.concatenate([x, x.conj()], axis=-1) for x in (Lambda, P, B))
    A = Lambda[..., None] * np.eye(Lambda.shape[-1])
    for row in P:
        A = A - row[:, :, None] * row.conj()[:, None, :]
    half, eye = dt[:, None, None] / 2 * A, np.eye(A.shape[-1])
    B_bar = np.linalg.solve(eye - half, (dt[:, None] * B)[..., None])[..., 0]
    return np.linalg.solve(eye - half, eye + half), B_bar


def dplr_kernel(dt: Any, Lambda: Any, P: Any, B: Any, C: Any, length: int) -> Numbers:
    """K_l = C A_bar^l B_bar on all conjugate states, by repeated multiplication."""
    A_bar, x = dplr_matrices(dt, Lambda, P, B)
    C = _wide(C)
    C = np.concatenate([C, C.conj()], axis=-1)
    kernel = np.zeros((length, A_bar.shape[0]))
    for position in range(length):
        kernel[position] = np.real((C * x).sum(axis=-1))
        x = (A_bar @ x[..., None])[..., 0]
    return kernel

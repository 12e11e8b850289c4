"""Every primitive as a plain sequential loop, with small fixed inputs: ``doctor`` compares.

Nothing of the library is used; sums are written as loops over time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Case", "cases", "rounded", "tolerance"]

Numbers: TypeAlias = NDArray[Any]
LENGTH, CHANNELS, STATES = 13, 3, 4  # an odd length: no power of two hides a mistake


@dataclass(frozen=True)
class Case:
    """Inputs, how the primitive is called with them, and the loop that gives the answer."""

    arrays: tuple[Numbers, ...]
    call: Callable[..., Any]
    naive: Callable[..., Any]


def tolerance(dtype: str) -> float:
    """Return the largest error relative to the peak: 64 eps.

    At most 13 steps of 4 states are summed with |a| < 1, so no output is behind more than
    about 13 + 4 rounded multiplications and additions of numbers below the peak; 64 leaves room
    for the transforms and solves.
    """
    return 64.0 * float(np.finfo(dtype).eps)


def rounded(x: Numbers, dtype: str) -> Numbers:
    """Return ``x`` rounded to the precision of ``dtype``; truth values stay."""
    if x.dtype.kind == "b":
        return x
    return x.astype(np.result_type(dtype, np.complex64) if x.dtype.kind == "c" else dtype)


def _wide(x: Numbers) -> Numbers:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def linear_scan(a: Numbers, b: Numbers, initial: Numbers, reset: Numbers) -> Numbers:
    """h_t = a_t h_{t-1} + b_t for b (L, P)."""
    h, out = _wide(initial), np.zeros(b.shape, np.result_type(_wide(a), _wide(b)))
    for t in range(b.shape[0]):
        h = np.where(reset[t], 0.0, _wide(a)[t] * h) + b[t]
        out[t] = h
    return out


def diagonal_scan(
    a: Numbers, B: Numbers, C: Numbers, u: Numbers, initial: Numbers, D: Numbers, reset: Numbers
) -> tuple[Numbers, Numbers]:
    """x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) + D u_t."""
    x, y = _wide(initial), np.zeros(u.shape)
    for t in range(u.shape[0]):
        x = np.where(reset[t], 0.0, a * x) + _wide(B) @ u[t]
        y[t] = (_wide(C) @ x).real + _wide(D) * u[t]
    return y, x


def selective_scan(
    u: Numbers, delta: Numbers, A: Numbers, B: Numbers, C: Numbers, D: Numbers, initial: Numbers,
    reset: Numbers,
) -> tuple[Numbers, Numbers]:  # fmt: skip
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t."""
    h, y = _wide(initial), np.zeros(u.shape)
    for t in range(u.shape[0]):
        step, v = _wide(delta[t])[:, None], _wide(u[t])
        h = np.where(reset[t], 0.0, np.exp(step * A) * h) + step * B[t] * v[:, None]
        y[t] = h @ _wide(C[t]) + _wide(D) * v
    return y, h


def causal_convolution(u: Numbers, kernel: Numbers) -> Numbers:
    """y_t = sum_{s <= t} kernel_s u_{t-s}."""
    y = np.zeros(u.shape)
    for t in range(u.shape[0]):
        for s in range(t + 1):
            y[t] += _wide(kernel[s]) * u[t - s]
    return y


def short_convolution(
    u: Numbers, weight: Numbers, bias: Numbers, state: Numbers
) -> tuple[Numbers, Numbers]:
    """y_t = bias + sum_k weight_k u_{t-K+1+k}."""
    past, taps = np.concatenate((state, u)), weight.shape[0]
    y = np.zeros(u.shape)
    for t in range(u.shape[0]):
        y[t] = bias
        for k in range(taps):
            y[t] += _wide(weight[k]) * past[t + k]
    return y, past[u.shape[0] :]


def diagonal_kernel(a: Numbers, coefficients: Numbers) -> Numbers:
    """K_l = Re(sum_n coefficients_n a_n^l)."""
    state, K = _wide(coefficients), np.zeros((LENGTH, CHANNELS))
    for step in range(LENGTH):
        K[step] = state.sum(axis=-1).real
        state = state * a
    return K


def dplr_kernel(dt: Numbers, Lambda: Numbers, P: Numbers, B: Numbers, C: Numbers) -> Numbers:
    """K_l = 2 Re(C A_bar^l B_bar), A_bar dense on all conjugate states."""
    K = np.zeros((LENGTH, CHANNELS))
    for h in range(CHANNELS):
        lam, p, b, c = (
            np.append(x, np.conj(x)) for x in map(_wide, (Lambda[h], P[0, h], B[h], C[h]))
        )
        A = np.diag(lam) - np.outer(p, np.conj(p))
        left, right = np.eye(len(lam)) - dt[h] / 2 * A, np.eye(len(lam)) + dt[h] / 2 * A
        state = np.linalg.solve(left, dt[h] * b)
        for step in range(LENGTH):
            K[step, h] = (c @ state).real
            state = np.linalg.solve(left, right @ state)
    return K


def cases() -> dict[str, list[Case]]:
    """Return the cases of every primitive, by its name."""
    rng = np.random.default_rng(0)

    def real(*shape: int) -> Numbers:
        return rng.standard_normal(shape)

    def complex_(*shape: int) -> Numbers:
        z: Numbers = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        return z

    def stable(*shape: int) -> Numbers:
        a: Numbers = rng.uniform(0.5, 0.95, shape) * np.exp(1j * rng.uniform(0, np.pi, shape))
        return a

    L, H, N = LENGTH, CHANNELS, STATES
    reset = np.arange(L) == 5
    scan_call: Callable[..., Any] = lambda f, a, b, x, r: f(a, b, x, reset=r)  # noqa: E731

    def backwards(a: Numbers, b: Numbers, x: Numbers, r: Numbers) -> Numbers:
        return linear_scan(np.broadcast_to(a, b.shape), b[::-1], x, r[::-1])[::-1]

    return {
        "linear_scan": [
            Case((stable(L, N), complex_(L, N), complex_(N), reset), scan_call, linear_scan),
            Case(
                (stable(N).real, real(L, N), real(N), reset),
                lambda f, a, b, x, r: f(a, b, x, reset=r, reverse=True),
                backwards,
            ),
        ],
        "diagonal_scan": [
            Case(
                (
                    stable(N), complex_(N, H), complex_(H, N), real(L, H), complex_(N), real(H),
                    reset,
                ),
                lambda f, a, B, C, u, x, D, r: f(
                    a, B, C, u, x, D=D, reset=r, return_state=True
                ),
                diagonal_scan,
            )
        ],
        "selective_scan": [
            Case(
                (
                    real(L, H), rng.uniform(0.1, 0.5, (L, H)), -rng.uniform(0.5, 2, (H, N)),
                    real(L, N), real(L, N), real(H), real(H, N), reset,
                ),
                lambda f, u, d, A, B, C, D, x, r: f(
                    u, d, A, B, C, D, initial=x, reset=r, return_state=True
                ),
                selective_scan,
            )
        ],
        "causal_convolution": [
            Case((real(L, H), real(L, H)), lambda f, u, k: f(u, k), causal_convolution)
        ],
        "short_convolution": [
            Case(
                (real(L, H), real(4, H), real(H), real(3, H)),
                lambda f, u, w, b, s: f(u, w, b, s),
                short_convolution,
            )
        ],
        "diagonal_kernel": [
            Case((stable(H, N), complex_(H, N)), lambda f, a, c: f(a, c, L), diagonal_kernel)
        ],
        "dplr_kernel": [
            Case(
                (
                    rng.uniform(0.1, 0.5, H),
                    -rng.uniform(0.5, 1, (H, N)) + 1j * rng.uniform(0, 4, (H, N)),
                    complex_(1, H, N), complex_(H, N), complex_(H, N),
                ),
                lambda f, dt, lam, P, B, C: f(dt, lam, P, B, C, L),
                dplr_kernel,
            )
        ],
    }  # fmt: skip

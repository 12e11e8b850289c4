"""The primitives in float64 NumPy, step by step: what errors are measured against."""

from __future__ import annotations

import numpy as np

from benchmarks.work import Numbers

__all__ = [
    "diagonal_channels",
    "diagonal_kernel",
    "diagonal_scan",
    "dplr_kernel",
    "linear_scan",
    "linear_scan_gradient",
    "selective_scan",
    "selective_scan_gradient",
    "wide",
]


def wide(x: Numbers) -> Numbers:
    """Return ``x`` in float64 or complex128."""
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


def linear_scan(a: Numbers, b: Numbers) -> Numbers:
    """h_t = a_t h_{t-1} + b_t along axis -2 of a, b (B, L, P)."""
    h = np.zeros((b.shape[0], b.shape[2]), wide(b[:, :1]).dtype)
    out = np.empty(b.shape, h.dtype)
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        out[:, t] = h
    return out


def linear_scan_gradient(a: Numbers, b: Numbers, g: Numbers, conjugate: bool) -> list[Numbers]:
    """h, da and db for cotangent g; ``conjugate`` is torch's convention, else JAX's."""
    h = linear_scan(a, b)
    factor = np.conj if conjugate else np.asarray
    G = np.empty_like(h)
    state = np.zeros_like(h[:, 0])
    for t in reversed(range(b.shape[1])):
        state = state * (factor(a[:, t + 1]) if t + 1 < b.shape[1] else 0.0) + g[:, t]
        G[:, t] = state
    da = np.zeros_like(h)
    da[:, 1:] = G[:, 1:] * factor(h[:, :-1])
    return [h, da, G]


def selective_scan(
    u: Numbers, delta: Numbers, A: Numbers, B: Numbers, C: Numbers, D: Numbers
) -> Numbers:
    """y of h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t."""
    u, delta, A, B, C, D = map(wide, (u, delta, A, B, C, D))
    h, y = np.zeros((u.shape[0], *A.shape)), np.empty_like(u)
    for t in range(u.shape[1]):
        h = np.exp(delta[:, t, :, None] * A) * h
        h += (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        y[:, t] = np.einsum("bhn,bn->bh", h, C[:, t]) + D * u[:, t]
    return y


def selective_scan_gradient(
    u: Numbers, delta: Numbers, A: Numbers, B: Numbers, C: Numbers, D: Numbers,
    g: Numbers,
) -> list[Numbers]:  # fmt: skip
    """y and the gradients of u, delta, A, B, C, D for cotangent g."""
    u, delta, A, B, C, D, g = map(wide, (u, delta, A, B, C, D, g))
    L = u.shape[1]
    h = np.zeros((L + 1, u.shape[0], *A.shape))  # h[t + 1] is the state after step t
    y = np.empty_like(u)
    for t in range(L):
        h[t + 1] = np.exp(delta[:, t, :, None] * A) * h[t]
        h[t + 1] += (delta[:, t] * u[:, t])[..., None] * B[:, t, None, :]
        y[:, t] = np.einsum("bhn,bn->bh", h[t + 1], C[:, t]) + D * u[:, t]
    du, ddelta = D * g, np.zeros_like(u)
    dA, dB, dC = np.zeros_like(A), np.zeros_like(B), np.zeros_like(C)
    G = np.zeros_like(h[0])
    for t in reversed(range(L)):
        G += g[:, t, :, None] * C[:, t, None, :]
        dC[:, t] = np.einsum("bh,bhn->bn", g[:, t], h[t + 1])
        drive = np.einsum("bhn,bn->bh", G, B[:, t])
        du[:, t] += delta[:, t] * drive
        dB[:, t] = np.einsum("bh,bhn->bn", delta[:, t] * u[:, t], G)
        a = np.exp(delta[:, t, :, None] * A)
        decay = G * a * h[t]
        ddelta[:, t] = u[:, t] * drive + np.einsum("bhn,hn->bh", decay, A)
        dA += np.einsum("bh,bhn->hn", delta[:, t], decay)
        G *= a
    return [y, du, ddelta, dA, dB, dC, np.einsum("blh,blh->h", g, u)]


def diagonal_kernel(a: Numbers, coefficients: Numbers, length: int) -> Numbers:
    """K (L, H), K_l = Re(sum_n c_n exp(l log a_n)), a channel at a time."""
    log_a, c, steps = np.log(wide(a)), wide(coefficients), np.arange(length)
    K = np.zeros((length, a.shape[0]))
    for h in range(a.shape[0]):
        for n in range(a.shape[1]):
            K[:, h] += (c[h, n] * np.exp(log_a[h, n] * steps)).real
    return K


def dplr_kernel(
    dt: Numbers, Lambda: Numbers, P: Numbers, B: Numbers, C: Numbers, length: int
) -> Numbers:
    """K (L, H) of A = diag(Lambda) - P P^*, bilinear, by the dense recurrence on all states."""
    lam, p, b, c = (np.concatenate((wide(x), wide(x).conj()), -1) for x in (Lambda, P[0], B, C))
    A = lam[:, :, None] * np.eye(lam.shape[1]) - p[:, :, None] * p[:, None, :].conj()
    half = 0.5 * wide(dt)[:, None, None] * A
    eye = np.eye(lam.shape[1])
    A_bar = np.linalg.solve(eye - half, eye + half)
    x = np.linalg.solve(eye - half, wide(dt)[:, None, None] * b[:, :, None])
    K = np.empty((length, lam.shape[0]))
    for step in range(length):
        K[step] = np.einsum("hn,hnk->h", c, x).real
        x = A_bar @ x
    return K


def diagonal_scan(a: Numbers, B: Numbers, C: Numbers, u: Numbers) -> Numbers:
    """y of x_t = a x_{t-1} + B u_t, y_t = Re(C x_t), for a (P)."""
    a, B, C, u = map(wide, (a, B, C, u))
    x, y = np.zeros((u.shape[0], a.shape[0]), np.complex128), np.empty_like(u)
    for t in range(u.shape[1]):
        x = a * x + u[:, t] @ B.T
        y[:, t] = (x @ C.T).real
    return y


def diagonal_channels(a: Numbers, B: Numbers, C: Numbers, D: Numbers, u: Numbers) -> Numbers:
    """y of H separate systems, a, B, C (H, N): y_t = 2 Re(sum_n C_n x_n) + D u_t."""
    x, y = np.zeros((u.shape[0], *a.shape), np.complex128), np.empty(u.shape)
    for t in range(u.shape[1]):
        x = a * x + B * wide(u[:, t, :, None])
        y[:, t] = 2 * np.einsum("hn,bhn->bh", C, x).real + D * u[:, t]
    return y

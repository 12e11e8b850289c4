"""Every model in 30 digits, by another derivation than the oracle's.

A model is one real linear system over all its states, stacked: a complex state is two real ones,
S4's low-rank term is ``-2 P Re(P^* x)``, zero-order hold the exponential of ``[[A, B], [0, 0]]``,
the bilinear transform an inverse. Slow: for a few channels, states and steps.

Tolerance. X_t = ||A_t|| X_{t-1} + ||B_t|| |u_t| in the infinity norm bounds every partial sum, so a
relative error d in each A_t, B_t and in each operation moves x_t by at most (t + 1) d X_t to first
order, and y_t by ||C_t|| (t + 2) d X_t + d |D u_t|. A dot product of n terms errs by n eps; a
discretized entry by ``kappa`` eps, stated by each model below.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import mpmath as mp
import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[np.float64]
Given: TypeAlias = Mapping[str, Any]

EPS = float(np.finfo(np.float64).eps)
DIGITS = 30


class System(NamedTuple):
    """x_t = A[t] x + B[t] u_t, y_t = C[t] x_t + D u_t as mpmath matrices; kappa in eps."""

    A: list[Any]
    B: list[Any]
    C: list[Any]
    D: Any
    kappa: float


class Exact(NamedTuple):
    y: Real  # (L, H)
    tolerance: Real  # (L, 1)


def norm(A: Any) -> float:
    return float(mp.mnorm(A, mp.inf))


def exact(values: Any) -> Any:
    """A float64 matrix in mpmath, every number kept exactly; a vector becomes a row."""
    return mp.matrix(np.atleast_2d(values).tolist())


def diagonal(values: Any) -> Any:
    return mp.diag([mp.mpf(value) for value in values])


# -------------------------------------------------------------------------- time-invariant models


def lssl(p: Given, scale: Any) -> tuple[Any, Any, Any]:
    """dt A, dt B, C of all features on the diagonal."""
    H, N = p["C"].shape
    A, B, C = mp.zeros(H * N), mp.zeros(H * N, H), mp.zeros(H, H * N)
    for h in range(H):
        dt, at = scale * mp.exp(p["log_dt"][h]), slice(h * N, (h + 1) * N)
        A[at, at] = dt * exact(p["A"])
        B[at, h] = dt * exact(p["B"]).T
        C[h, at] = exact(p["C"][h])
    return A, B, C


def siso(p: Given, scale: Any) -> tuple[Any, Any, Any]:
    """S4 and S4D: dt A, dt B, C."""
    H, N, _ = p["C"].shape
    A, B, C = mp.zeros(2 * H * N), mp.zeros(2 * H * N, H), mp.zeros(H, 2 * H * N)
    for h in range(H):
        dt, row = scale * mp.exp(p["log_dt"][h]), h % len(p["A_imag"])
        feature = slice(2 * h * N, 2 * (h + 1) * N)
        for k in range(N):
            pair = slice(2 * (h * N + k), 2 * (h * N + k + 1))
            re, im = -mp.exp(p["A_log_real"][row, k]), mp.mpf(p["A_imag"][row, k])
            A[pair, pair] = dt * rotation(re, im)
            B[pair, h] = dt * exact(p["B"][row, k]).T
            C[h, pair] = 2 * exact(p["C"][h, k] * [1, -1])
        for P in p["P"][:, row] if "P" in p else []:
            column = exact(P.reshape(-1, 1))
            A[feature, feature] -= 2 * dt * column * column.T
    return A, B, C


def mimo(lam: list[tuple[Any, Any]], factor: list[Any], p: Given, scale: int) -> Any:
    """S5 and LRU: A, B, C for eigenvalues (re, im), a factor of each row of B, scale of C."""
    H, N, _ = p["C"].shape
    A, B, C = mp.zeros(2 * N), mp.zeros(2 * N, H), mp.zeros(H, 2 * N)
    for k in range(N):
        pair = slice(2 * k, 2 * k + 2)
        A[pair, pair] = rotation(*lam[k])
        B[pair, :] = factor[k] * exact(p["B"][k].T)
        for h in range(H):
            C[h, pair] = scale * exact(p["C"][h, k] * [1, -1])
    return A, B, C


def rotation(re: Any, im: Any) -> Any:
    """Multiplication by re + i im on (Re x, Im x)."""
    return mp.matrix([[re, -im], [im, re]])


def s5(p: Given, options: Given, scale: Any) -> tuple[Any, Any, Any]:
    dt = [scale * mp.exp(value) for value in p["log_dt"]]
    largest = mp.mpf(-1e-4) if options.get("clip_eigs") else mp.inf
    re = [min(mp.mpf(value), largest) for value in p["Lambda_re"]]
    lam = [(d * a, d * mp.mpf(b)) for d, a, b in zip(dt, re, p["Lambda_im"], strict=True)]
    A, B, C = mimo(lam, dt, p, 2 if options.get("conj_sym", True) else 1)
    return A, B, C


def lru(p: Given, length: int) -> System:
    """kappa: e^(i theta) has condition theta."""
    modulus = [mp.exp(-mp.exp(nu)) for nu in p["nu_log"]]
    theta = [mp.exp(value) for value in p["theta_log"]]
    lam = [(m * mp.cos(t), m * mp.sin(t)) for m, t in zip(modulus, theta, strict=True)]
    A, B, C = mimo(lam, [mp.exp(value) for value in p["gamma_log"]], p, 1)
    return constant(A, B, C, p, length, 8 * (1 + float(max(theta))))


def constant(A: Any, B: Any, C: Any, p: Given, length: int, kappa: float) -> System:
    return System([A] * length, [B] * length, [C] * length, diagonal(p["D"]), kappa)


def discretize(A: Any, B: Any, rule: str) -> tuple[Any, Any, float]:
    """A, B here include dt. kappa: exp(z) has condition |z|; a solve n cond(I - A/2)."""
    n, m = A.rows, B.cols
    if rule == "bilinear":
        left = mp.eye(n) - A / 2
        inverse = left**-1
        return inverse * (mp.eye(n) + A / 2), inverse * B, 8 * n * norm(left) * norm(inverse)
    augmented = mp.zeros(n + m)
    augmented[:n, :n], augmented[:n, n:] = A, B
    exponential = mp.expm(augmented)
    return exponential[:n, :n], exponential[:n, n:], 8 * (1 + norm(A))


def time_invariant(model: str, p: Given, options: Given, length: int) -> System:
    if model == "LRU":
        return lru(p, length)
    scale = mp.mpf(options.get("dt_scale", 1.0))
    if model == "S5":
        A, B, C = s5(p, options, scale)
    else:
        A, B, C = (lssl if model == "LSSL" else siso)(p, scale)
    rule = options.get("discretization", "bilinear" if model in ("LSSL", "S4") else "zoh")
    A_bar, B_bar, kappa = discretize(A, B, rule)
    return constant(A_bar, B_bar, C, p, length, kappa)


# ---------------------------------------------------------------------------- time-varying models


def s6(p: Given, u: Real, options: Given) -> System:
    """kappa: dt errs as its pre-activation (softplus is 1-Lipschitz), A_bar by A times that."""
    H, N = p["A_log"].shape
    R = p["dt_proj"]["weight"].shape[1]
    zoh, scale = options.get("discretization") == "zoh", mp.mpf(options.get("dt_scale", 1.0))
    system = System([], [], [], diagonal(p["D"]), 0.0)
    kappa = 0.0
    for u_t in u:
        z = exact(p["x_proj"]) * exact(u_t).T
        size = np.abs(p["x_proj"]) @ np.abs(u_t)  # the absolute sums behind z
        low = exact(p["dt_proj"]["weight"]) * z[:R, 0] + exact(p["dt_proj"]["bias"]).T
        rough = np.abs(p["dt_proj"]["weight"]) @ size[:R] + np.abs(p["dt_proj"]["bias"])
        A, B, C = mp.zeros(H * N), mp.zeros(H * N, H), mp.zeros(H, H * N)
        for i in range(H * N):
            h, k = divmod(i, N)
            a, dt = -mp.exp(p["A_log"][h, k]), scale * mp.log(1 + mp.exp(low[h]))
            A[i, i] = mp.exp(dt * a)
            B[i, h] = (mp.expm1(dt * a) / a if zoh else dt) * z[R + k]
            C[h, i] = z[R + N + k]
            dots = sum(size[j] / abs(float(z[j])) for j in (R + k, R + N + k))
            error = (H + R) * rough[h] * float(scale * (1 / dt - a))
            kappa = max(kappa, 8 * (1 + error + H * dots + float(-dt * a)))
        system.A.append(A)
        system.B.append(B)
        system.C.append(C)
    return system._replace(kappa=kappa)


def gate(weights: Mapping[str, Real], u_t: Real, j: int) -> tuple[Any, float]:
    """sigmoid(block-diagonal W u + b) of channel j, and the absolute sum behind it."""
    head, column = divmod(j, weights["w"].shape[2])
    inputs = u_t.reshape(len(weights["w"]), -1)[head]
    terms = [
        mp.mpf(x) * mp.mpf(w) for x, w in zip(inputs, weights["w"][head, :, column], strict=True)
    ]
    terms.append(mp.mpf(weights["b"][head, column]))
    return 1 / (1 + mp.exp(-mp.fsum(terms))), float(mp.fsum(map(abs, terms)))


def rglru(p: Given, u: Real, options: Given, reset: NDArray[np.bool_]) -> System:
    """kappa: sigmoid and softplus are 1-Lipschitz in their logarithm, a has condition s."""
    H = len(p["a_param"])
    system = System([], [], [mp.eye(H)] * len(u), mp.zeros(H), 0.0)
    kappa = 0.0
    for t, u_t in enumerate(u):
        A, B = mp.zeros(H), mp.zeros(H)
        for j in range(H):
            r, size_r = gate(p["a_gate"], u_t, j)
            i, size_i = gate(p["input_gate"], u_t, j)
            s = options.get("c", 8.0) * r * mp.log(1 + mp.exp(p["a_param"][j]))
            if reset[t] or (t == 0 and options.get("first_step_reset", True)):
                B[j, j] = i
            else:
                A[j, j], B[j, j] = mp.exp(-s), mp.sqrt(1 - mp.exp(-2 * s)) * i
            kappa = max(kappa, 8 * (1 + H * (size_r + size_i)) * (1 + float(s)))
        system.A.append(A)
        system.B.append(B)
    return system._replace(kappa=kappa)


# ----------------------------------------------------------------------------------------- running


def exact_run(
    model: str, p: Given, u: Real, options: Given, reset: NDArray[np.bool_] | None = None
) -> Exact:
    """The outputs for one sequence u (L, H), and how far float64 may be from them."""
    restart = np.zeros(len(u), bool) if reset is None else reset
    with mp.workdps(DIGITS):
        if model == "S6":
            system = s6(p, u, options)
        elif model == "RGLRU":
            system = rglru(p, u, options, restart)
        else:
            system = time_invariant(model, p, options, len(u))
        return simulate(system, u, restart)


def simulate(system: System, u: Real, restart: NDArray[np.bool_]) -> Exact:
    states, channels = system.A[0].rows, u.shape[1]
    x, X, y, tolerance = mp.zeros(states, 1), 0.0, [], []
    unit = EPS * (system.kappa + 4 * (states + channels))
    for t, u_t in enumerate(u):
        A, B, C = system.A[t], system.B[t], system.C[t]
        column, peak = exact(u_t).T, float(np.abs(u_t).max())
        if restart[t]:
            x, X = mp.zeros(states, 1), 0.0
        x, X = A * x + B * column, norm(A) * X + norm(B) * peak
        y.append([float(value) for value in C * x + system.D * column])
        tolerance.append([unit * ((t + 2) * norm(C) * X + norm(system.D) * peak)])
    return Exact(np.array(y), np.array(tolerance))

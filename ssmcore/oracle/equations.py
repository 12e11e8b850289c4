"""The equations of every model, as one recurrence each, for the oracle alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Real: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = NDArray[Any]  # float64 or complex128
Given: TypeAlias = Mapping[str, Real]
Options: TypeAlias = Mapping[str, Any]

S5_LARGEST_REAL_PART = -1e-4


class Recurrence(NamedTuple):
    """``x_t = advance(t, x_{t-1}) + drive_t``, ``y = output(states)``; time axis after batch."""

    advance: Callable[[int, Numbers], Numbers]
    drive: Numbers
    output: Callable[[Numbers], Numbers]


# ------------------------------------------------------------------------------ discretisation


def _phi(z: Numbers) -> Numbers:
    """``(e^z - 1) / z``, with value 1 at 0.

    exp([[z, 1], [0, 0]]) = [[e^z, phi(z)], [0, 1]]. Squaring that matrix at z/2 gives
    phi(z) = (e^{z/2} + 1) phi(z/2) / 2; the series sum_k z^k / (k+1)! starts it at |z| <= 1/2.
    """
    largest = float(np.max(np.abs(z), initial=0.0))
    halvings = max(0, int(np.ceil(np.log2(2 * largest)))) if 0 < largest < np.inf else 0
    small = z / 2.0**halvings
    phi: Numbers = np.ones_like(z)
    for k in range(18, 1, -1):  # Horner; the first term left out is 2^-18 / 19! < 1e-22
        phi = 1 + small * phi / k
    for k in range(halvings, 0, -1):
        phi = (1 + np.exp(z / 2.0**k)) * phi / 2
    return phi


def _bilinear(A: Numbers, B: Numbers, dt: Real) -> tuple[Numbers, Numbers]:
    """``(I - dt/2 A) [A_bar, B_bar] = [I + dt/2 A, dt B]`` for A (..., n, n), B (..., n)."""
    half = dt[..., None, None] / 2 * A
    identity = np.eye(A.shape[-1])
    A_bar = np.linalg.solve(identity - half, identity + half)
    B_bar = np.linalg.solve(identity - half, (dt[..., None] * B)[..., None])[..., 0]
    return A_bar, B_bar


def _discretize_diagonal(lam: Numbers, dt: Real, rule: str) -> tuple[Numbers, Numbers]:
    """``lam_bar`` and the factor of B: bilinear as 1 x 1 systems, else zero-order hold."""
    if rule == "bilinear":
        A_bar, factor = _bilinear(lam[..., None, None], np.ones((*lam.shape, 1)), dt)
        return A_bar[..., 0, 0], factor[..., 0]
    z: Numbers = dt * lam
    lam_bar: Numbers = np.exp(z)
    return lam_bar, dt * _phi(z)


# --------------------------------------------------------------------------- models, one by one


def _time_first(array: Numbers, u: Real) -> Numbers:
    return np.moveaxis(array, u.ndim - 2, 0)


def _complex(pair: Numbers) -> Numbers:
    z: Numbers = pair[..., 0] + 1j * pair[..., 1]
    return z


def _tile(rows: Numbers, features: int) -> Numbers:
    """Row ``h mod n`` for feature h: (n, ...) to (features, ...)."""
    tiled: Numbers = rows[np.arange(features) % rows.shape[0]]
    return tiled


def _channels(u: Real, p: Given) -> Real:
    """The input of every feature: channel f mod H of u for feature f."""
    return np.moveaxis(_tile(np.moveaxis(u, -1, 0), p["D"].shape[0]), 0, -1)


TRANSFORMS: dict[str, Callable[[Real], Real]] = {
    "none": lambda x: x,
    "exp": np.exp,
    "softplus": lambda x: np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0),
    "sigmoid": lambda x: 0.5 * (1 + np.tanh(x / 2)),
    "relu": lambda x: np.maximum(x, 0) + 1e-4,
}


def _step_size(p: Given, options: Options) -> Real:
    """dt of every feature, (F) or (F, N)."""
    dt = TRANSFORMS[options.get("dt_transform", "exp")](p["log_dt"]) * float(options["dt_scale"])
    return _tile(dt, p["D"].shape[0]) if "A" in p or "A_log_real" in p else dt


def _s4_eigenvalues(p: Given, options: Options) -> Numbers:
    decay = TRANSFORMS[options["real_transform"]](p["A_log_real"])
    lam: Numbers = -decay + 1j * TRANSFORMS[options["imag_transform"]](p["A_imag"])
    return _tile(lam, p["D"].shape[0])


def s4_system(p: Given, options: Options) -> tuple[Numbers, Numbers]:
    """A_bar (F, 2N, 2N) and B_bar (F, 2N) on all conjugate states: A = diag(lam) - P P^*.

    With a step size a state, T = diag(dt), in the coordinates T^-1/2 x: T^1/2 A T^1/2.
    """
    features = p["D"].shape[0]
    lam = _s4_eigenvalues(p, options)
    lam = np.concatenate([lam, lam.conj()], axis=-1)
    B = _tile(_complex(p["B"]), features)
    B = np.concatenate([B, B.conj()], axis=-1)
    A = lam[..., None] * np.eye(lam.shape[-1])
    for P in _complex(p["P"]):
        column = _tile(np.concatenate([P, P.conj()], axis=-1), features)
        A = A - column[:, :, None] * column.conj()[:, None, :]
    dt = _step_size(p, options)
    if dt.ndim == 1:
        return _bilinear(A, B, dt)
    root = np.sqrt(np.concatenate([dt, dt], axis=-1))
    return _bilinear(root[:, :, None] * A * root[:, None, :], root * B, np.ones(features))


def _s4(p: Given, u: Real, options: Options, reset: Numbers) -> Recurrence:
    A_bar, B_bar = s4_system(p, options)
    stored = A_bar.shape[-1] // 2
    rows, C, v = A_bar[:, :stored], _complex(p["C"]), _channels(u, p)
    dt = _step_size(p, options)
    C = C if dt.ndim == 1 else C * np.sqrt(dt)

    def advance(_: int, x: Numbers) -> Numbers:
        both = np.concatenate([x, x.conj()], axis=-1)
        product: Numbers = (rows @ both[..., None])[..., 0]
        return product

    drive = B_bar[:, :stored] * v[..., None]
    return Recurrence(advance, drive, lambda x: 2 * (C * x).sum(-1).real + p["D"] * v)


def _s4d(p: Given, u: Real, options: Options, reset: Numbers) -> Recurrence:
    lam_bar, factor = lti_eigenvalues("S4D", p, options)
    v = _channels(u, p)
    B, C = (p["B"], p["C"]) if options["is_real"] else (_complex(p["B"]), _complex(p["C"]))
    scale = 1 if options["is_real"] else 2
    return Recurrence(
        lambda _, x: lam_bar * x,
        factor * _tile(B, v.shape[-1]) * v[..., None],
        lambda x: scale * (C * x).sum(-1).real + p["D"] * v,
    )


def _s5_or_lru(name: str) -> Callable[..., Recurrence]:
    """MIMO diagonal: ``x_t = lam_bar x_{t-1} + factor (B u_t)``, ``y = scale Re(C x) + D u``."""

    def build(p: Given, u: Real, options: Options, reset: Numbers) -> Recurrence:
        lam_bar, factor = lti_eigenvalues(name, p, options)
        B, C = _complex(p["B"]), _complex(p["C"])
        scale = 2 if options.get("conj_sym", False) else 1
        return Recurrence(
            lambda _, x: lam_bar * x,
            factor * (u @ B.T),
            lambda x: scale * (x @ C.T).real + p["D"] * u,
        )

    return build


def lssl_system(p: Given, options: Options) -> tuple[Numbers, Numbers]:
    """A_bar (F, N, N) and B_bar (F, N), real."""
    features = len(p["C"])
    A, B = (
        _tile(x if x.ndim == axes else x[None], features) for x, axes in ((p["A"], 3), (p["B"], 2))
    )
    return _bilinear(A, B, _step_size(p, options))


def _lssl(p: Given, u: Real, options: Options, reset: Numbers) -> Recurrence:
    A_bar, B_bar = lssl_system(p, options)
    v = _channels(u, p)
    return Recurrence(
        lambda _, x: (A_bar @ x[..., None])[..., 0],
        B_bar * v[..., None],
        lambda x: (p["C"] * x).sum(-1) + p["D"] * v,
    )


def _s6(p: Given, u: Real, options: Options, reset: Numbers) -> Recurrence:
    A = -np.exp(p["A_log"])
    rank, states = p["dt_proj.weight"].shape[1], A.shape[1]
    low, B, C = np.split(u @ p["x_proj"].T, [rank, rank + states], axis=-1)
    softplus = np.logaddexp(0.0, low @ p["dt_proj.weight"].T + p["dt_proj.bias"])
    dt = float(options["dt_scale"]) * softplus[..., None]
    factor = dt * _phi(dt * A) if options["discretization"] == "zoh" else dt
    A_bar = _time_first(np.exp(dt * A), u)
    return Recurrence(
        lambda t, x: A_bar[t] * x,
        factor * B[..., None, :] * u[..., None],
        lambda x: (x @ C[..., None])[..., 0] + p["D"] * u,
    )


def _rglru(p: Given, u: Real, options: Options, reset: Numbers) -> Recurrence:
    heads = u.reshape(*u.shape[:-1], *p["a_gate.b"].shape)

    def gate(name: str) -> Real:
        z = np.einsum("...hi,hij->...hj", heads, p[f"{name}.w"]) + p[f"{name}.b"]
        sigmoid: Real = np.exp(-np.logaddexp(0.0, -z)).reshape(u.shape)
        return sigmoid

    s = float(options["c"]) * gate("a_gate") * np.logaddexp(0.0, p["a_param"])
    fresh = reset[..., None]
    a = np.where(fresh, 0.0, np.exp(-s))
    square = (1 + np.exp(-2 * s)) * np.tanh(s) + float(options["root_offset"])
    multiplier = np.where(fresh, 1.0, np.sqrt(square))
    a_first = _time_first(a, u)
    return Recurrence(lambda t, h: a_first[t] * h, multiplier * gate("input_gate") * u, lambda h: h)


BUILDERS: dict[str, Callable[..., Recurrence]] = {
    "LSSL": _lssl,
    "S4": _s4,
    "S4D": _s4d,
    "S5": _s5_or_lru("S5"),
    "LRU": _s5_or_lru("LRU"),
    "S6": _s6,
    "RGLRU": _rglru,
}


def state_shape(model: str, p: Given) -> tuple[int, ...]:
    """Shape of one state, without batch axes."""
    if model == "RGLRU":
        return p["a_param"].shape
    if model in ("S5", "LRU"):
        return p["B"].shape[:1]
    if model == "S6":
        return p["A_log"].shape
    return p["C"].shape[:2]


def lti_eigenvalues(model: str, p: Given, options: Options) -> tuple[Numbers, Numbers]:
    """The diagonal of A_bar and the factor that turns B into B_bar: S4D, S5, LRU."""
    if model == "LRU":
        lam_bar = np.exp(-np.exp(p["nu_log"]) + 1j * np.exp(p["theta_log"]))
        return lam_bar, np.exp(p["gamma_log"])
    dt = _step_size(p, options)
    if model == "S4D":
        lam = _s4_eigenvalues(p, options)
        lam = lam.real if options["is_real"] else lam
        return _discretize_diagonal(lam, dt.reshape(len(lam), -1), options["discretization"])
    real = p["Lambda_re"]
    if options["clip_eigs"]:
        real = np.minimum(real, S5_LARGEST_REAL_PART)
    return _discretize_diagonal(real + 1j * p["Lambda_im"], dt, options["discretization"])

"""Discretisation: from the continuous system x' = A x + B u to x_k = A_bar x_{k-1} + B_bar u_k.

Every formula works on z = dt lambda held as an unevaluated sum of two numbers, because rounding
the product alone would cost |z| ulp in e^z. Values and derivatives are free of cancellation for
Re lambda <= 0, lambda = 0 included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ssmcore import arrays, backend
from ssmcore._arguments import is_finite, plain
from ssmcore.errors import SSMError, check_choice
from ssmcore.primitives._checks import check_array, readable
from ssmcore.typing import Array

__all__ = ["DENSE_METHODS", "METHODS", "apply_method", "discretize", "discretize_dense"]

ADVICE = "; parametrise dt as exp(log_dt) or softplus(x)"
DTYPES = ("float32", "float64", "complex64", "complex128")


def discretize(A: Array, dt: Array | float, method: str = "zoh") -> tuple[Array, Array]:
    r"""Discretise a diagonal system, elementwise: A_bar, and gain with B_bar = gain B.

    With z = dt lambda for every diagonal entry lambda:

    ========== ===================== ==================== =======================
    method     A_bar                 gain                 input between samples
    ========== ===================== ==================== =======================
    "zoh"      e^z                   (e^z - 1) / lambda   held constant
    "bilinear" (1 + z/2) / (1 - z/2) dt / (1 - z/2)       trapezoidal rule
    "euler"    1 + z                 dt                   explicit Euler
    "mamba"    e^z                   dt                   zoh for A, Euler for B
    "dirac"    e^z                   1                    an impulse each sample
    ========== ===================== ==================== =======================

    Parameters
    ----------
    A : array (...), float32, float64, complex64 or complex128
        The diagonal entries lambda.
    dt : array, the real dtype of ``A``, or float
        Step size >= 0, broadcast against ``A``: scalar, per channel, per state or per time step;
        the caller adds the axes. A float is rounded to the dtype of ``A``.
    method : str
        One of the table.

    Returns
    -------
    A_bar, gain : arrays of the broadcast shape of ``A`` and ``dt``, dtype of ``A``

    Raises
    ------
    SSMError
        Unknown method; ``A`` not of the dtypes above; ``dt`` of another library or precision;
        ``dt`` negative or not finite (not looked at while a compiler traces); shapes of ``A`` and
        ``dt`` that do not broadcast.

    Notes
    -----
    Elementwise: O(size) time and memory. The error is below 16 eps |value| (complex values as a
    whole; 3 eps measured) against the exact product of the given A and dt, for |z| <= 1000,
    Re z <= 0, beyond underflow. Derivatives are as good relative to the sum of the moduli of
    their terms: for "zoh" that is the derivative itself (d gain / d dt = e^z), for "bilinear"
    |value| / |A| or |value| / dt.

    Sources: "zoh", "bilinear" Gu, Goel, Re 2022 (S4), eq. (3), and Gupta et al. 2022; "mamba" the
    code of Gu, Dao 2023, whose eq. (4) says "zoh"; "dirac" Smith et al. 2023 (S5).

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.discretization import discretize
    >>> A = np.asarray([-1.0, -1e-12, 0.0])
    >>> A_bar, gain = discretize(A, 0.5)
    >>> A_bar.round(4), gain.round(4)
    (array([0.6065, 1.    , 1.    ]), array([0.3935, 0.5   , 0.5   ]))
    """
    check_choice("discretize", "method", method, METHODS)
    _check_dtype("discretize", "A", A, DTYPES)
    step = _checked_step("discretize", A, dt)
    _check_broadcast("discretize", {"A": A.shape, "dt": step.shape})
    return apply_method(A, step, method)


def apply_method(A: Array, dt: Array, method: str) -> tuple[Array, Array]:
    """Return ``discretize(A, dt, method)`` without its checks; ``dt`` is an array."""
    return _FORMULAS[method](A, dt)


def _zoh(A: Array, dt: Array) -> tuple[Array, Array]:
    """e^z and (e^z - 1)/lambda: the series of phi_1(z) = (e^z - 1)/z for |z| < 1."""
    xp = arrays.namespace(A, dt)
    z, low = _product(A, dt)
    near = xp.real(z * arrays.conj(z)) < 1.0 if arrays.is_complex(z) else xp.abs(z) < 1.0
    zero = xp.zeros_like(z)
    far_z = xp.where(near, zero, z)
    divisor = xp.where(near, xp.ones_like(z), A)
    A_bar = _exp(z, low)
    far = _exp_minus_one(far_z, low, A_bar) / divisor
    return A_bar, xp.where(near, dt * _phi1(xp.where(near, z, zero)), far)


def _bilinear(A: Array, dt: Array) -> tuple[Array, Array]:
    """(1 + z/2)/(1 - z/2) and dt/(1 - z/2)."""
    z, low = _product(A, 0.5 * dt)
    denominator = _one_plus(-z, -low)
    return _one_plus(z, low) / denominator, dt / denominator


def _euler(A: Array, dt: Array) -> tuple[Array, Array]:
    """1 + z and dt."""
    A_bar = _one_plus(*_product(A, dt))
    return A_bar, _spread(dt, A_bar)


def _mamba(A: Array, dt: Array) -> tuple[Array, Array]:
    """e^z and dt."""
    A_bar = _exp(*_product(A, dt))
    return A_bar, _spread(dt, A_bar)


def _dirac(A: Array, dt: Array) -> tuple[Array, Array]:
    """e^z and 1."""
    A_bar = _exp(*_product(A, dt))
    return A_bar, arrays.namespace(A_bar).ones_like(A_bar)


_FORMULAS: dict[str, Callable[[Array, Array], tuple[Array, Array]]] = {
    "zoh": _zoh,
    "bilinear": _bilinear,
    "euler": _euler,
    "mamba": _mamba,
    "dirac": _dirac,
}
METHODS = tuple(_FORMULAS)
"""The methods of :func:`discretize`."""

DENSE_METHODS = ("bilinear", "euler")
"""The methods of :func:`discretize_dense`."""


def discretize_dense(
    A: Array, B: Array, dt: Array | float, method: str = "bilinear", *, alpha: float = 0.5
) -> tuple[Array, Array]:
    """Discretise a dense real system: A_bar and B_bar.

    "bilinear" is the generalised bilinear transform

        A_bar = (I - alpha dt A)^-1 (I + (1 - alpha) dt A),   B_bar = (I - alpha dt A)^-1 dt B

    with alpha = 1/2 the trapezoidal rule and alpha = 1 backward Euler; "euler" is alpha = 0.

    Parameters
    ----------
    A : array (..., N, N), float32 or float64
    B : array (..., N), dtype of ``A``
    dt : array (...), dtype of ``A``, or float
        Step size >= 0. The leading axes of ``A``, ``B`` and ``dt`` broadcast.
    method : str
        ``"bilinear"`` or ``"euler"``.
    alpha : float
        Weight of the implicit part of "bilinear", in [0, 1].

    Returns
    -------
    A_bar : array (..., N, N)
    B_bar : array (..., N)

    Raises
    ------
    SSMError
        Unknown method, alpha outside [0, 1] or given to "euler", shapes that do not fit, what
        :func:`discretize` refuses, and a singular I - alpha dt A: raised by the solver, or, where
        it raises nothing, after a look at values that can be read without waiting for a device.

    Notes
    -----
    One factorisation: O(N^3) a system. Source: Gu et al. 2021 (LSSL), eq. (3).

    Examples
    --------
    >>> import numpy as np
    >>> from ssmcore.discretization import discretize_dense
    >>> A_bar, B_bar = discretize_dense(np.asarray([[-1.0]]), np.ones(1), 0.5)
    >>> A_bar, B_bar
    (array([[0.6]]), array([0.4]))
    """
    check_choice("discretize_dense", "method", method, DENSE_METHODS)
    _check_dense(A, B, method, alpha)
    alpha = plain(alpha)
    step = _checked_step("discretize_dense", A, dt)
    leading = {"leading axes of A": A.shape[:-2], "leading axes of B": B.shape[:-1]}
    _check_broadcast("discretize_dense", {**leading, "dt": step.shape})
    step = step[..., None, None]
    xp = arrays.namespace(A, B)
    n = A.shape[-1]
    eye = xp.eye(n, dtype=A.dtype, device=arrays.device(A))
    implicit = 0.0 if method == "euler" else alpha
    matrix, column = eye + (1.0 - implicit) * step * A, step * B[..., None]
    lead = np.broadcast_shapes(matrix.shape[:-2], column.shape[:-2])
    matrix = xp.broadcast_to(matrix, (*lead, n, n))
    column = xp.broadcast_to(column, (*lead, n, 1))
    if implicit == 0.0:
        return matrix, column[..., 0]
    left = xp.broadcast_to(eye - implicit * step * A, (*lead, n, n))
    both = _solve(left, xp.concat((matrix, column), axis=-1))
    return both[..., :-1], both[..., -1]


def _solve(left: Array, right: Array) -> Array:
    """Return left^-1 right; SSMError where ``left`` = I - alpha dt A is singular."""
    msg = (
        "discretize_dense: I - alpha dt A is singular: alpha dt is 1 over an eigenvalue of A; "
        "expected another step size, or an A whose eigenvalues have negative real parts"
    )
    xp = arrays.namespace(left, right)
    try:
        out = xp.linalg.solve(left, right)
    except Exception as error:
        if not type(error).__name__.endswith("LinAlgError"):  # every library has its own
            raise
        raise SSMError(msg) from error
    if readable(out) and not bool(xp.all(xp.isfinite(out))) and bool(xp.all(xp.isfinite(left))):
        raise SSMError(msg)  # JAX raises nothing
    return out


def _product(A: Array, dt: Array) -> tuple[Array, Array]:
    """Return z = fl(dt A) and the exact remainder of the product, both of the dtype of A."""
    if not arrays.is_complex(A):
        return arrays.two_product(dt, A)
    xp = arrays.namespace(A, dt)
    x, x_low = arrays.two_product(dt, xp.real(A))
    y, y_low = arrays.two_product(dt, xp.imag(A))
    return x + y * 1j, x_low + y_low * 1j


def _exp(z: Array, low: Array) -> Array:
    """Return e^(z + low); 1 + low is e^low to rounding, as |low| <= eps |z|."""
    return arrays.namespace(z).exp(z) * (1.0 + low)


def _exp_minus_one(z: Array, low: Array, power: Array) -> Array:
    """Return e^(z + low) - 1, given ``power`` = e^(z + low) where Re z < -1.

    There nothing cancels, and ``power - 1`` differentiates to e^z, which the derivative of expm1
    would bury under its rounding.
    """
    xp = arrays.namespace(z)
    real = xp.real(z) if arrays.is_complex(z) else z
    step = low + 0.5 * low * low
    close = arrays.expm1(z) * (1.0 + step) + step
    return xp.where(real < -1.0, power - 1.0, close)


def _one_plus(z: Array, low: Array) -> Array:
    """Return 1 + (z + low): the first sum is exact wherever it cancels (Sterbenz)."""
    return (1.0 + z) + low


def _phi1(z: Array) -> Array:
    """Return (e^z - 1)/z = 1 + z/2 (1 + z/3 (1 + ...)) for |z| <= 1.

    As many terms as the derivative needs: the first one left out is z^n/(n+1)!, its derivative
    below 1/n! < eps/2.
    """
    eps = float(arrays.namespace(z).finfo(z.dtype).eps)
    terms = next(n for n in range(1, 99) if math.factorial(n) * eps > 2.0)
    total = 1.0 + z * (1.0 / (terms + 1))
    for k in range(terms, 1, -1):
        total = 1.0 + total * z * (1.0 / k)
    return total


def _spread(dt: Array, like: Array) -> Array:
    """Return dt with the shape and dtype of ``like``."""
    xp = arrays.namespace(like)
    return xp.broadcast_to(xp.astype(dt, like.dtype), like.shape)


def _check_dtype(owner: str, name: str, x: Array, allowed: tuple[str, ...]) -> None:
    """Raise SSMError unless ``x`` is an array whose dtype is one of ``allowed``."""
    check_array(owner, name, x)
    backend.of(x)
    if backend.dtype_name(x) not in allowed:
        msg = (
            f"{owner}: {name} has dtype {backend.dtype_name(x)}; expected {', '.join(allowed)}; "
            "convert it first"
        )
        raise SSMError(msg)


def _checked_step(owner: str, A: Array, dt: Array | float) -> Array:
    """Return ``dt`` as an array beside ``A``, after checking its library, dtype and values."""
    real = arrays.real_dtype(arrays.namespace(A), A.dtype)
    if isinstance(dt, int | float) and not isinstance(dt, bool):
        limit = float(arrays.namespace(A).finfo(real).max)
        if not 0.0 <= dt <= limit:
            msg = f"{owner}: dt holds {dt!r:.50}; expected a step from 0 to {limit:.3g}{ADVICE}"
            raise SSMError(msg)
        return arrays.like(A, float(dt), dtype=real)
    check_array(owner, "dt", dt)
    library = backend.of(A, dt)
    if dt.dtype != real:
        msg = (
            f"{owner}: dt has dtype {backend.dtype_name(dt)} beside A of dtype "
            f"{backend.dtype_name(A)}; expected the real dtype of A; convert one of them"
        )
        raise SSMError(msg)
    if library.concrete(dt):
        _check_values(owner, library.to_numpy(dt))
    return dt


def _check_broadcast(owner: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise SSMError unless the named shapes broadcast against each other."""
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError:
        found = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        msg = f"{owner}: shapes do not broadcast: {found}; add axes of length 1 where they differ"
        raise SSMError(msg) from None


def _check_values(owner: str, dt: np.ndarray[Any, Any]) -> None:
    """Raise SSMError unless every step is finite and >= 0."""
    wrong = dt[~(np.isfinite(dt) & (dt >= 0.0))]
    if wrong.size:
        msg = (
            f"{owner}: dt holds {float(wrong[0])} ({wrong.size} of {dt.size} steps are negative or "
            f"not finite); expected finite steps >= 0{ADVICE}"
        )
        raise SSMError(msg)


def _check_dense(A: Array, B: Array, method: str, alpha: float) -> None:
    """Raise SSMError unless A is (..., N, N), B (..., N), of one real dtype, and alpha fits."""
    _check_dtype("discretize_dense", "A", A, DTYPES[:2])
    _check_dtype("discretize_dense", "B", B, DTYPES[:2])
    backend.of(A, B)
    square = A.ndim >= 2 and A.shape[-1] == A.shape[-2]
    if not square or B.ndim < 1 or B.shape[-1] != A.shape[-1] or A.dtype != B.dtype:
        msg = (
            f"discretize_dense: A is {backend.dtype_name(A)} {tuple(A.shape)}, B is "
            f"{backend.dtype_name(B)} {tuple(B.shape)}; expected (..., N, N) and (..., N), "
            "both of one dtype"
        )
        raise SSMError(msg)
    if not is_finite(alpha) or not 0.0 <= alpha <= 1.0 or (method == "euler" and alpha != 0.5):
        msg = (
            f"discretize_dense: alpha is {alpha!r} with method {method!r}; expected a number in "
            "[0, 1], and none with 'euler', which is 'bilinear' with alpha=0"
        )
        raise SSMError(msg)

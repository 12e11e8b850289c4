"""Activations by name: the reference in the array API, or the library's own where it has one.

Hendrycks, Gimpel, "Gaussian error linear units", 2016. The error function is that of Cody,
"Rational Chebyshev approximations for the error function", 1969, to about one rounding of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from ssmcore import arrays, backend
from ssmcore._checks import HALF
from ssmcore.typing import Array

__all__ = ["ACTIVATIONS", "activate", "erf"]

NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2),
    3.20937758913846947e3,
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3),
    2.84423683343917062e3,
)
FAR_TOP = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
FAR_BOTTOM = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Return the polynomial with ``coefficients``, the highest power first."""
    first, *rest = coefficients
    total = first * x
    for c in rest[:-1]:
        total = (total + c) * x
    return total + rest[-1]


def erf(x: Array) -> Array:
    """Return the error function, real float32 or float64."""
    xp = arrays.namespace(x)
    near = xp.abs(x) < 0.46875
    small = xp.where(near, x, xp.zeros_like(x))
    square = small * small
    inner, outer = (*NEAR[0], NEAR[1]), (*NEAR[2], NEAR[3])
    middle = small * _polynomial(inner, square) / _polynomial(outer, square)
    size = xp.clip(xp.where(near, xp.ones_like(x), xp.abs(x)), max=6.0)
    tail = xp.exp(-size * size) * _polynomial(FAR_TOP, size) / _polynomial(FAR_BOTTOM, size)
    return xp.where(near, middle, xp.sign(x) * (1.0 - tail))


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1.0 + erf(math.sqrt(0.5) * x))


def _gelu_tanh(x: Array) -> Array:
    xp = arrays.namespace(x)
    return 0.5 * x * (1.0 + xp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))


def _silu(x: Array) -> Array:
    return x * arrays.sigmoid(x)


def _relu(x: Array) -> Array:
    return arrays.namespace(x).where(x > 0, x, arrays.namespace(x).zeros_like(x))


def _identity(x: Array) -> Array:
    return x


ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {
        "gelu": _gelu,
        "gelu_tanh": _gelu_tanh,
        "silu": _silu,
        "relu": _relu,
        "identity": _identity,
        "sigmoid": arrays.sigmoid,
    }
)
"""gelu(x) = x Phi(x); gelu_tanh: its approximation by tanh; silu(x) = x sigmoid(x)."""


def activate(name: str, x: Array) -> Array:
    """Return activation ``name`` of ``x`` in its dtype; half precision runs in float32."""
    fn = backend.of(x).elementwise().get(name, ACTIVATIONS[name])
    if backend.dtype_name(x) not in HALF:
        return fn(x)
    xp = arrays.namespace(x)
    return xp.astype(fn(xp.astype(x, xp.float32)), x.dtype)

"""The tolerance of every comparison in the suite: tol = eps * c * growth.

eps is that of the dtype under test. ``growth`` is computed from the data of the case: what the
primitive returns when every number is replaced by its modulus, so the largest value that the
rounding errors of the single terms can add up to (Higham, Accuracy and Stability, sec. 3.1: a sum
of n products errs by at most n eps sum |x_k y_k|). ``c`` counts roundings in units of eps = 2u:

* a complex product errs by 2 sqrt(2) u and a sum by u, so a step h <- a h + b by under 2 eps;
* L steps, or a product of L factors in any order, by L times that: ``steps(L)``;
* a dot product of n terms by n eps more: ``steps(L, n)``;
* an FFT of n points by log2(n) eps in the 2-norm: ``fft(n)``, growth |u|_2 |k|_2.

The oracles run in float64. Where float64 itself is under test they make errors of the same size,
hence the factor of two sides.

Two bars are not derived: the requirement on layers states them as shares of the output's peak,
for any sequence length and any |lambda| up to 1 - 1e-6.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ssmcore_conformance.snippets import HISTORY

if TYPE_CHECKING:
    from ssmcore_conformance.worst import Worst

__all__ = ["EQUIVALENCE", "GRADIENTS", "bound", "check", "eps", "fft", "steps"]

EQUIVALENCE = {"float64": 1e-10, "float32": 2e-5}
"""Recurrence, scan, convolution and chunks may differ by this share of the output's peak."""

GRADIENTS = 1e-10
"""Gradients of two libraries in float64 may differ by this share of the gradient's peak."""

PER_STEP = 2
SIDES = 2
SHARPEST = 8
"""A tolerance above 1/8 of the expected peak could not tell a wrong answer from a right one.

At least half of the entries have one below; the others may belong to an ill-conditioned part.
"""


def eps(dtype: Any) -> float:
    """Return the spacing of 1 in the real dtype of the same precision as ``dtype``."""
    return float(np.finfo(np.dtype(dtype)).eps)


def steps(length: int, terms: int = 0) -> float:
    """Return the roundings, in eps, of ``length`` steps and a dot product of ``terms`` terms."""
    return SIDES * PER_STEP * (length + terms + 1)


def fft(points: int) -> float:
    """Return the roundings, in eps, of three FFTs of ``points`` points and one product."""
    return SIDES * PER_STEP * (3 * math.log2(max(2, points)) + 1)


def bound(dtype: Any, count: float, growth: Any) -> np.ndarray[Any, Any]:
    """Return eps * count * growth, and never less than what underflow can take away."""
    smallest = float(np.finfo(np.dtype(dtype)).smallest_normal)
    return np.asarray(eps(dtype) * count * np.asarray(growth) + count * smallest)


def check(
    worst: Worst, name: str, backend: str, dtype: Any, got: Any, expected: Any, tolerance: Any
) -> None:
    """Record the worst error relative to its tolerance; AssertionError where it is not within."""
    got, expected = np.asarray(got), np.asarray(expected)
    assert got.shape == expected.shape, f"{name}: shape {got.shape}, expected {expected.shape}"
    if got.size == 0:
        return
    error = np.abs(got.astype(np.result_type(got, np.float64)) - expected)
    limit = np.broadcast_to(tolerance, error.shape)
    peak, usual = np.max(np.abs(expected)), np.quantile(limit, 0.5, method="lower")
    assert peak == 0 or usual * SHARPEST <= peak, f"{name}: tolerance {usual}"
    at = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error / limit)), error.shape)
    worst(name, backend, str(np.dtype(dtype)), float(error[at]), float(limit[at]))
    if not np.all(error <= limit):
        text = (
            f"{name} on {backend}, {np.dtype(dtype)}: error {error[at]:.3e} at "
            f"{tuple(map(int, at))}, tolerance {limit[at]:.3e}, "
            f"expected {expected[at]}, got {got[at]}"
        )
        raise HISTORY.refuse(text, got[at], expected[at], float(limit[at]))

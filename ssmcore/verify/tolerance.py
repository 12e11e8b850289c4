"""Every tolerance of ``ssmcore verify``, each with the argument it comes from."""

from __future__ import annotations

import math

import numpy as np

from ssmcore.typing import Array

__all__ = ["FORMULAS", "between_modes", "condition", "eigenvalue", "gradient", "memory", "oracle"]

PUBLISHED = {"float32": 2e-5, "float64": 1e-10}
STEP = 64.0
FORMULAS = {
    "oracle": "eps (64 + memory) of the peak, memory = min(L, 1 / (1 - max |a|))",
    "between_modes": "2e-5 (float32), 1e-10 (float64) of the peak",
    "eigenvalues": "64 eps; S4 and LSSL: 16 eps64 cond(eigenvectors)",
    "gradients": "eps64 (64 + memory) sqrt(L) of each gradient's peak",
}


def eps(dtype: str) -> float:
    """Return the machine epsilon of ``dtype``."""
    return float(np.finfo(dtype).eps)


def memory(eigenvalues: Array, length: int) -> float:
    """Return how many steps count: min(L, 1 / (1 - max |a|)); L where some |a| is 1 or more.

    Examples
    --------
    >>> import numpy as np
    >>> memory(np.asarray([0.5, 0.75]), 1000)
    4.0
    """
    largest = float(np.max(np.abs(eigenvalues)))
    return float(length) if not largest < 1 else min(float(length), 1.0 / (1.0 - largest))


def oracle(dtype: str, steps: float) -> float:
    """Return the largest error of an output against the oracle, relative to the peak output.

    tolerance = eps (64 + memory).

    The oracle starts from the same rounded parameters, so what is left is the arithmetic.
    *Once per system*: a = exp(dt lambda) is formed from rounded numbers with a relative error of
    about e = 2.7 eps (the step size, the product, the exponential), and a^k has k times that. Since
    k |a|^k is at most memory / e over all k, the impulse response moves by at most memory eps of
    its peak. *Once per output*: the products and sums over states and channels, and the FFT,
    cost a fixed number of roundings; 64 stands for them.

    Examples
    --------
    >>> oracle("float64", 1024.0) / 2**-52
    1088.0
    """
    return eps(dtype) * (STEP + steps)


def between_modes(dtype: str) -> float:
    """Return the published bound on differences between modes: 2e-5 (float32), 1e-10 (float64).

    All modes run the same rounded transition, so its error, the larger part of ``oracle``, is
    common to them; and a recurrence carries its state in float64 where the library has it, as
    float32 would be rounded the same way at every step of a slowly changing state.
    """
    return PUBLISHED[dtype]


def eigenvalue(dtype: str, condition: float | None) -> float:
    """Return the largest error of an eigenvalue of A_bar, absolute; |a| is about 1 at most.

    tolerance = 64 eps for diagonal models and time-varying ones: one exponential (or one division)
    of a product of rounded numbers; an error of eps in an angle of up to 2 pi counts 2 pi times.

    tolerance = 16 eps64 kappa(V) for the dense ones (S4, LSSL), which run in float64: backward
    stable solvers are exact for a matrix within a few eps, which moves eigenvalues by as much
    times the condition number of the eigenvectors (Bauer and Fike 1960). For HiPPO matrices it
    grows tenfold with every one and a half states: 8e10 at 16.
    """
    if condition is not None:
        return 16.0 * eps("float64") * condition
    return STEP * eps(dtype)


def condition(A_bar: Array) -> float:
    """Return the largest condition number of the eigenvectors of A_bar (..., N, N)."""
    return float(np.max(np.linalg.cond(np.linalg.eig(A_bar).eigenvectors)))


def gradient(steps: float, length: int) -> float:
    """Return the largest difference of float64 gradients, relative to each parameter's peak.

    tolerance = eps (64 + memory) sqrt(L): the derivative of a^k with respect to a is k a^(k-1), no
    less exact than a^k; but a gradient sums L steps of either sign against a random cotangent,
    which leaves about 1 / sqrt(L) of the terms' size while their errors stay.
    """
    return oracle("float64", steps) * math.sqrt(length)

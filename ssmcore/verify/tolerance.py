"""Every tolerance of ``ssmcore verify``, each with the argument it comes from."""

from __future__ import annotations

import math

import numpy as np

from ssmcore.typing import Array

__all__ = ["between_modes", "eigenvalue", "gradient", "memory", "oracle"]

PUBLISHED = {"float32": 2e-5, "float64": 1e-10}
STEP = 64.0


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
    common to them, and the bound need not grow with the memory.
    """
    return PUBLISHED[dtype]


def eigenvalue(dtype: str, dense_states: int) -> float:
    """Return the largest error of an eigenvalue of A_bar, absolute; |a| is about 1 at most.

    tolerance = 64 eps for diagonal models and time-varying ones: one exponential (or one division)
    of a product of rounded numbers; an error of eps in an angle of up to 2 pi counts 2 pi times.

    tolerance = 64 eps64 2^(4 N / 3) for the dense ones (S4, LSSL) with N states, which run in
    float64: backward stable solvers are exact for a matrix within eps, and the eigenvectors of a
    HiPPO matrix have a condition number near 2^(4 N / 3) (S4, Lemma 3.2).
    """
    if dense_states:
        return STEP * eps("float64") * 2.0 ** (4.0 * dense_states / 3.0)
    return STEP * eps(dtype)


def gradient(steps: float, length: int) -> float:
    """Return the largest difference of float64 gradients, relative to each parameter's peak.

    tolerance = eps (64 + memory) sqrt(L): the derivative of a^k with respect to a is k a^(k-1), no
    less exact than a^k; but a gradient sums L steps of either sign against a random cotangent,
    which leaves about 1 / sqrt(L) of the terms' size while their errors stay.
    """
    return oracle("float64", steps) * math.sqrt(length)

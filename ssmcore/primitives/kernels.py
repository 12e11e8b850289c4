"""Convolution kernels of diagonal and diagonal-plus-low-rank systems."""

from __future__ import annotations

from ssmcore import arrays, backend
from ssmcore._arguments import plain
from ssmcore.errors import SSMError
from ssmcore.primitives._checks import check_dt, check_kind, check_precision, check_shape
from ssmcore.primitives.dispatch import implementation
from ssmcore.typing import Array

__all__ = ["diagonal_kernel", "dplr_kernel"]


def _checked_length(owner: str, length: int, x: Array) -> int:
    """Return ``length`` as Python's own integer; SSMError for anything but a number of steps.

    What the library of ``x`` leaves open while it exports stays as it is.
    """
    if backend.is_open(x, length):
        return length
    length = plain(length)
    if not isinstance(length, int) or isinstance(length, bool) or length < 0:
        msg = f"{owner}: length is {length!r}; expected a whole number of steps, at least 0"
        raise SSMError(msg)
    return length


def diagonal_kernel(a: Array, coefficients: Array, length: int) -> Array:
    """Return the kernel of H diagonal single-input single-output systems.

    K_l = Re(sum_n coefficients_n a_n^l), l = 0..length-1: a Vandermonde product.

    Parameters
    ----------
    a : (H, N), real or complex, float32 or float64 precision
        Diagonal of the discrete transition.
    coefficients : (H, N), dtype of ``a``
        C_n B_n, with the factor 2 of conjugate pairs where there is one.
    length : int

    Returns
    -------
    K : (length, H) real.

    Raises
    ------
    SSMError
        Shapes that do not fit, mixed libraries or precisions, integer or half dtypes, bad length.

    Notes
    -----
    The powers are taken of ``a`` itself, not of a separate logarithm, so that the kernel, the
    scan and the recurrence run the very same transition; each power is correct to a few ulp.
    O(H N length) operations, O(H N sqrt(length) + H length) memory. Source: S4D (Gu et al. 2022),
    equation 7.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> ssm.diagonal_kernel(np.asarray([[0.5]]), np.asarray([[1.0]]), 3)[:, 0]
    array([1.  , 0.5 , 0.25])
    """
    owner = "diagonal_kernel"
    check_precision(owner, a=a, coefficients=coefficients)
    kind = "complex" if arrays.is_complex(a) else "real"
    check_kind(owner, kind, coefficients=coefficients)
    check_shape(owner, "a", a, "(H, N)", a.ndim == 2)
    same = tuple(coefficients.shape) == tuple(a.shape)
    check_shape(owner, "coefficients", coefficients, str(tuple(a.shape)), same)
    length = _checked_length(owner, length, a)
    return implementation(owner, a, coefficients)(a, coefficients, length)


def dplr_kernel(dt: Array, Lambda: Array, P: Array, B: Array, C: Array, length: int) -> Array:
    """Return the kernel of H systems A = diag(Lambda) - P P*, discretised by the bilinear rule.

    K_l = 2 Re(C A_bar^l B_bar), A_bar = (I - dt/2 A)^-1 (I + dt/2 A), B_bar = (I - dt/2 A)^-1 dt B,
    all on the conjugate-expanded space, of which half is stored.

    Parameters
    ----------
    dt : (H,) real, at least 0
    Lambda : (H, N) complex, same precision
    P : (r, H, N) complex, rank r from 0
    B : (H, N) complex
    C : (H, N) complex, the true output vector, whatever the length
    length : int

    Returns
    -------
    K : (length, H), dtype of ``dt``.

    Raises
    ------
    SSMError
        Shapes that do not fit, mixed libraries or precisions, integer or half dtypes, bad length,
        negative or not finite ``dt`` where it can be looked at without waiting for a device.

    Notes
    -----
    A product of two tables of powers of A_bar, made by doubling, in float64, or in sums of two
    float32 where there is no float64: a float32 tap is correct to a few ulp of the largest ones, a
    float64 tap loses about one ulp a step.
    On GPUs native kernels sum the generating function on a circle of radius e^(-2/L), a Cauchy
    product per node, the low rank by the Woodbury identity, and one inverse FFT. No node meets a
    pole, even where Lambda = 0, and omega = -1 is a node like any other.
    O(H N (L + N^2 log L)) operations, O(H (L + N L^(1/2) + N^2 log L)) memory.
    Source: S4 (Gu, Goel, Re 2022), Algorithm 1 and appendix C.3.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> one, no_rank = np.ones((1, 1), complex), np.ones((0, 1, 1), complex)
    >>> ssm.dplr_kernel(np.ones(1), -one, no_rank, one, one, 3)[:, 0].round(12)
    array([1.33333333, 0.44444444, 0.14814815])
    """
    owner = "dplr_kernel"
    check_precision(owner, dt=dt, Lambda=Lambda, P=P, B=B, C=C)
    check_kind(owner, "real", dt=dt)
    check_kind(owner, "complex", Lambda=Lambda, P=P, B=B, C=C)
    check_shape(owner, "Lambda", Lambda, "(H, N)", Lambda.ndim == 2)
    H, N = Lambda.shape
    check_shape(owner, "dt", dt, f"({H},)", tuple(dt.shape) == (H,))
    check_shape(owner, "P", P, f"(r, {H}, {N})", P.ndim == 3 and tuple(P.shape[1:]) == (H, N))
    for name, x in (("B", B), ("C", C)):
        check_shape(owner, name, x, str((H, N)), tuple(x.shape) == (H, N))
    length = _checked_length(owner, length, dt)
    check_dt(owner, "dt", dt)
    return implementation(owner, dt, Lambda)(dt, Lambda, P, B, C, length)

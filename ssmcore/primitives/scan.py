"""Linear recurrences as parallel scans."""

from __future__ import annotations

from typing import Any

from ssmcore import arrays
from ssmcore._arguments import check_flag
from ssmcore.primitives._checks import (
    broadcasts_to,
    check_dt,
    check_initial,
    check_kind,
    check_precision,
    check_reset,
    check_shape,
)
from ssmcore.primitives.dispatch import implementation
from ssmcore.typing import Array

__all__ = ["diagonal_scan", "linear_scan", "selective_scan"]


def linear_scan(
    a: Array,
    b: Array,
    initial: Array | None = None,
    *,
    reset: Array | None = None,
    reverse: bool = False,
) -> Array:
    """Run a diagonal linear recurrence in parallel over time.

    h_t = a_t h_{t-1} + b_t, elementwise, with h_{-1} = initial.

    Parameters
    ----------
    a : (P,), (..., 1, P) or (..., L, P), real or complex
        Transition; must broadcast against ``b``. Without a time axis, or with one of length 1,
        it is constant in time and its powers are computed to about one ulp.
    b : (..., L, P), real or complex, float32 or float64 precision
        Drive.
    initial : (..., P), dtype of the result
        State before the first step; None means zero.
    reset : (..., L) bool
        True restarts the state: h_{t-1} is taken as 0 at that step.
    reverse : bool
        Run from the last step to the first: h_t = a_t h_{t+1} + b_t.

    Returns
    -------
    h : (..., L, P)
        All states, in the dtype that ``a`` and ``b`` promote to.

    Raises
    ------
    SSMError
        Shapes that do not fit, mixed libraries or precisions, integer or half dtypes,
        or a flag that is not True or False.

    Notes
    -----
    O(L P) multiplications in O(log L) levels. Source: Blelloch, "Prefix sums and their
    applications", 1990; S5 (Smith et al. 2023), section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> ssm.linear_scan(np.asarray([0.5]), np.ones((4, 1)))[:, 0]
    array([1.   , 1.5  , 1.75 , 1.875])
    """
    owner = "linear_scan"
    check_flag(owner, reverse=reverse)
    check_precision(owner, a=a, b=b, initial=initial)
    check_shape(owner, "b", b, "(..., L, P)", b.ndim >= 2)
    shape = tuple(b.shape)
    check_shape(
        owner,
        "a",
        a,
        f"(P,), (..., 1, P) or (..., L, P) to match b {shape}",
        a.ndim >= 1 and broadcasts_to(a, shape),
    )
    check_initial(owner, initial, (*shape[:-2], shape[-1]))
    check_reset(owner, reset, b)
    xp = arrays.namespace(a, b)
    if not (arrays.is_complex(a) or arrays.is_complex(b)):
        check_kind(owner, "real", initial=initial)
    b = xp.astype(b, xp.result_type(a.dtype, b.dtype), copy=False)
    run = implementation(owner, a, b)
    return run(a, b, initial, reset=reset, reverse=reverse)


def diagonal_scan(
    a: Array,
    B: Array,
    C: Array,
    u: Array,
    initial: Array | None = None,
    *,
    D: Array | None = None,
    reset: Array | None = None,
    reverse: bool = False,
    return_state: bool = False,
) -> Any:
    """Run a diagonal time-invariant system from input to output.

    x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) + D u_t.

    Parameters
    ----------
    a : (P,) or (H, N), real or complex
        Diagonal of the transition: one system with P states mixing all channels, or H separate
        single-input single-output systems with N states each.
    B : (P, H) or (H, N), dtype of ``a``
    C : (H, P) or (H, N), dtype of ``a``
    u : (..., L, H), real, same precision
    initial : (..., P) or (..., H, N), dtype of ``a``
        State before the first step; None means zero.
    D : (H,) real
        Feedthrough; None means none. Adding D u_t later costs a pass over the outputs more.
    reset : (..., L) bool
        True restarts the state before that step.
    reverse : bool
        Run from the last step to the first.
    return_state : bool
        Also return the state after the last step taken.

    Returns
    -------
    y : (..., L, H) real, dtype of ``u``; with ``return_state`` a pair (y, state).

    Raises
    ------
    SSMError
        Shapes that do not fit, mixed libraries or precisions, integer or half dtypes,
        or a flag that is not True or False.

    Notes
    -----
    A factor 2 for conjugate pairs belongs in C. The reference holds all L states in memory.
    Source: S5 (Smith et al. 2023), equation 2; LRU (Orvieto et al. 2023), equation 4.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> one = np.ones((1, 1))
    >>> ssm.diagonal_scan(0.5 * one, one, one, np.ones((3, 1)))[:, 0]
    array([1.  , 1.5 , 1.75])
    """
    owner = "diagonal_scan"
    check_flag(owner, reverse=reverse, return_state=return_state)
    check_precision(owner, a=a, B=B, C=C, u=u, D=D, initial=initial)
    check_kind(owner, "real", u=u, D=D)
    kind = "complex" if arrays.is_complex(a) else "real"
    check_kind(owner, kind, B=B, C=C, initial=initial)
    check_shape(owner, "a", a, "(P,) or (H, N)", a.ndim in (1, 2))
    check_shape(owner, "u", u, "(..., L, H)", u.ndim >= 2)
    H = u.shape[-1]
    n = tuple(a.shape)
    b_shape, c_shape = ((n[0], H), (H, n[0])) if a.ndim == 1 else (n, n)
    if a.ndim == 2:
        check_shape(owner, "a", a, f"(H, N) with H = {H} as in u", n[0] == H)
    check_shape(owner, "B", B, str(b_shape), tuple(B.shape) == b_shape)
    check_shape(owner, "C", C, str(c_shape), tuple(C.shape) == c_shape)
    if D is not None:
        check_shape(owner, "D", D, str((H,)), tuple(D.shape) == (H,))
    check_initial(owner, initial, (*u.shape[:-2], *n))
    check_reset(owner, reset, u)
    run = implementation(owner, a, u)
    y, state = run(a, B, C, u, initial, D=D, reset=reset, reverse=reverse)
    return (y, state) if return_state else y


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    *,
    initial: Array | None = None,
    reset: Array | None = None,
    return_state: bool = False,
) -> Any:
    """Run the selective state space recurrence of S6 (Mamba).

    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t; with complex A (half of
    the conjugate pairs) y_t = 2 Re(C_t h_t) + D u_t.

    Parameters
    ----------
    u, delta : (..., L, H) real
        Input and step size.
    A : (H, N), real or complex
    B, C : (..., L, N), shared by all channels, or (..., L, H, N); real or complex
        The second form has one axis more than ``u``; its leading and time axes may be 1.
    D : (H,) real
    initial : (..., H, N), dtype of the state
    reset : (..., L) bool
        True restarts the state before that step.
    return_state : bool
        Also return the state after the last step.

    Returns
    -------
    y : (..., L, H), dtype of ``u``; with ``return_state`` a pair (y, state).

    Raises
    ------
    SSMError
        Shapes that do not fit, mixed libraries or precisions, integer or half dtypes,
        negative or not finite ``delta`` where it can be looked at without waiting for a device,
        or a flag that is not True or False.

    Notes
    -----
    Source: Mamba (Gu and Dao 2023), Algorithm 2, with the Euler rule for B of its implementation.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> one = np.ones((3, 1))
    >>> ssm.selective_scan(one, one, -np.log(2) * np.ones((1, 1)), one, one)[:, 0]
    array([1.  , 1.5 , 1.75])
    """
    owner = "selective_scan"
    check_flag(owner, return_state=return_state)
    check_precision(owner, u=u, delta=delta, A=A, B=B, C=C, D=D, initial=initial)
    check_kind(owner, "real", u=u, delta=delta, D=D)
    check_shape(owner, "u", u, "(..., L, H)", u.ndim >= 2)
    shape = tuple(u.shape)
    check_shape(owner, "delta", delta, str(shape), tuple(delta.shape) == shape)
    check_shape(
        owner, "A", A, f"(H, N) with H = {shape[-1]}", A.ndim == 2 and A.shape[0] == shape[-1]
    )
    N = A.shape[1]
    check_kind(owner, "real", u=u, delta=delta, D=D)
    if not arrays.is_complex(A):
        check_kind(owner, "real", B=B, C=C, initial=initial)
    check_dt(owner, "delta", delta)
    for name, x in (("B", B), ("C", C)):
        shared, own = (*shape[:-1], N), (*shape, N)
        fits = broadcasts_to(x, own) if x.ndim == len(own) else tuple(x.shape) == shared
        check_shape(owner, name, x, f"{shared} or {own}", fits)
    if D is not None:
        check_shape(owner, "D", D, f"({shape[-1]},)", tuple(D.shape) == shape[-1:])
    check_initial(owner, initial, (*shape[:-2], *A.shape))
    check_reset(owner, reset, u)
    run = implementation(owner, u, A)
    y, state = run(u, delta, A, B, C, D, initial=initial, reset=reset)
    return (y, state) if return_state else y

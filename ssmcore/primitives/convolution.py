"""Causal convolutions along time."""

from __future__ import annotations

from ssmcore.primitives._checks import (
    broadcasts_to,
    check_kind,
    check_precision,
    check_shape,
)
from ssmcore.primitives.dispatch import implementation
from ssmcore.typing import Array

__all__ = ["causal_convolution", "short_convolution"]


def causal_convolution(u: Array, kernel: Array) -> Array:
    """Convolve each channel with a long kernel through the FFT.

    y_t = sum_{s=0}^{t} kernel_s u_{t-s}.

    Parameters
    ----------
    u : (..., L, H), real or complex, float32 or float64 precision
    kernel : (K, H) or (..., K, H), same precision
        Taps beyond L are ignored.

    Returns
    -------
    y : (..., L, H), in the dtype that ``u`` and ``kernel`` promote to.

    Raises
    ------
    SSMError
        Shapes that do not fit, mixed libraries or precisions, integer or half dtypes.

    Notes
    -----
    O(H L log L), zero-padded, never in half precision. Source: S4 (Gu, Goel, Re 2022), section 2.4.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> ssm.causal_convolution(np.ones((3, 1)), np.asarray([[1.0], [2.0]]))[:, 0].round(12)
    array([1., 3., 3.])
    """
    owner = "causal_convolution"
    check_precision(owner, u=u, kernel=kernel)
    check_shape(owner, "u", u, "(..., L, H)", u.ndim >= 2)
    aligned = (*u.shape[:-2], *kernel.shape[-2:])
    fits = kernel.ndim >= 2 and kernel.shape[-1] == u.shape[-1] and broadcasts_to(kernel, aligned)
    check_shape(owner, "kernel", kernel, f"(K, H) with H = {u.shape[-1]}", fits)
    return implementation(owner, u, kernel)(u, kernel)


def short_convolution(
    u: Array, weight: Array, bias: Array | None = None, state: Array | None = None
) -> tuple[Array, Array]:
    """Convolve each channel with a few taps, causally, carrying the last inputs as the state.

    y_t = bias + sum_{k=0}^{K-1} weight_k u_{t-K+1+k}: the last tap multiplies the current input.

    Parameters
    ----------
    u : (..., L, H) real
    weight : (K, H), K at least 1
    bias : (H,)
    state : (..., K-1, H)
        The inputs before the first step, oldest first; None means zeros.

    Returns
    -------
    y : (..., L, H), dtype of ``u``
    state : (..., K-1, H)
        The last K-1 inputs, to be given to the next call.

    Raises
    ------
    SSMError
        Shapes that do not fit, mixed libraries or precisions, integer or half dtypes.

    Notes
    -----
    O(H L K). Source: Mamba (Gu and Dao 2023), section 3.4; Griffin (De et al. 2024), section 2.3.

    Examples
    --------
    >>> import numpy as np
    >>> import ssmcore as ssm
    >>> y, state = ssm.short_convolution(np.ones((3, 1)), np.asarray([[2.0], [1.0]]))
    >>> y[:, 0], state[:, 0]
    (array([1., 3., 3.]), array([1.]))
    """
    owner = "short_convolution"
    check_precision(owner, u=u, weight=weight, bias=bias, state=state)
    check_kind(owner, "real", u=u, weight=weight, bias=bias, state=state)
    check_shape(owner, "u", u, "(..., L, H)", u.ndim >= 2)
    H = u.shape[-1]
    ok = weight.ndim == 2 and weight.shape[0] >= 1 and weight.shape[1] == H
    check_shape(owner, "weight", weight, f"(K, {H}) with K at least 1", ok)
    if bias is not None:
        check_shape(owner, "bias", bias, f"({H},)", tuple(bias.shape) == (H,))
    if state is not None:
        expected = (*u.shape[:-2], weight.shape[0] - 1, H)
        check_shape(owner, "state", state, str(expected), tuple(state.shape) == expected)
    out: tuple[Array, Array] = implementation(owner, u, weight)(u, weight, bias, state)
    return out

"""Checkpoints of state-spaces/mamba, and the argument layout of its selective scan.

Paper: Gu, Dao 2023 (Mamba, arXiv:2312.00752), Algorithm 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ssmcore._arguments import check_flag
from ssmcore.arrays import complex_dtype, is_complex, namespace, softplus
from ssmcore.checkpoints.reading import Reading, check_keys, check_shapes, select
from ssmcore.errors import SSMError
from ssmcore.primitives._checks import check_array
from ssmcore.typing import Array

__all__ = ["read_mamba_mixer", "selective_scan_arguments"]

_AROUND = ("in_proj.", "conv1d.", "out_proj.")


def read_mamba_mixer(state_dict: Mapping[str, Any], *, prefix: str = "") -> Reading:
    """Read the selective state space of a ``Mamba`` mixer (not its projections and convolution).

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = C_t h_t + D u_t, A = -exp(A_log).

    Parameters
    ----------
    state_dict : mapping of str to array
        A_log (H, N), D (H), x_proj.weight (R + 2N, H), dt_proj.weight (H, R), dt_proj.bias (H),
        H the inner width; in_proj.*, conv1d.* and out_proj.* are the block's and are ignored.
    prefix : str
        Where the mixer sits, e.g. "backbone.layers.0.mixer".

    Returns
    -------
    Reading
        "S6" with the Euler input matrix ("mamba").

    Raises
    ------
    SSMError
        Missing, unexpected or misshapen arrays.

    Examples
    --------
    >>> import numpy as np
    >>> H, N, R = 6, 4, 2
    >>> found = {"A_log": np.zeros((H, N)), "D": np.ones(H), "dt_proj.bias": np.zeros(H),
    ...          "x_proj.weight": np.ones((R + 2 * N, H)), "dt_proj.weight": np.ones((H, R))}
    >>> read_mamba_mixer(found).options
    {'d_model': 6, 'd_state': 4, 'dt_rank': 2, 'discretization': 'mamba'}
    """
    names = ["A_log", "D", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"]
    arrays = check_keys("Mamba", select(state_dict, prefix), names, ignored=_AROUND)
    for name in ("A_log", "dt_proj.weight"):
        if arrays[name].ndim != 2:
            msg = f"Mamba: {name} has shape {arrays[name].shape}; expected 2 axes"
            raise SSMError(msg)
    H, N = arrays["A_log"].shape
    R = arrays["dt_proj.weight"].shape[1]
    shapes = {"D": (H,), "x_proj.weight": (R + 2 * N, H), "dt_proj.weight": (H, R)}
    check_shapes("Mamba", arrays, shapes | {"dt_proj.bias": (H,)})
    params = {
        "A_log": arrays["A_log"],
        "D": arrays["D"],
        "x_proj": arrays["x_proj.weight"],
        "dt_proj": {"weight": arrays["dt_proj.weight"], "bias": arrays["dt_proj.bias"]},
    }
    options = {"d_model": H, "d_state": N, "dt_rank": R, "discretization": "mamba"}
    return Reading("S6", options, params)


def selective_scan_arguments(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None = None,
    z: Array | None = None,
    delta_bias: Array | None = None,
    delta_softplus: bool = False,
) -> dict[str, Array]:
    """Turn arguments of the original's ``selective_scan`` into ssmcore's layout.

    h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t, y_t = C_t h_t + D u_t; complex A: 2 Re(C_t h_t).

    Parameters
    ----------
    u, delta : real (batch, H, L)
    A : real or complex (H, N)
    B, C : array
        (H, N) constant, of A's kind; or (batch, N, L), shared by the channels; or
        (batch, G, N, L) for G groups of H/G channels. With complex A the latter two are real
        with (re, im) interleaved along a last axis of 2L.
    D : real (H,), optional
    z : real (batch, H, L), optional
        Gate; the caller multiplies the output by z sigmoid(z).
    delta_bias : real (H,), optional
        Added to delta here.
    delta_softplus : bool
        Whether dt = softplus(delta + delta_bias); done here.

    Returns
    -------
    dict
        u, delta (batch, L, H); A (H, N); B, C as (batch, L, N) shared, (batch, L, H, N) for
        groups, (1, 1, H, N) constant in time; D and z (batch, L, H) where given.

    Raises
    ------
    SSMError
        Something that is no array, arrays of several libraries, a shape that is none of the above,
        a flag that is not True or False.

    Notes
    -----
    Written against the array API, so gradients flow through it.

    Examples
    --------
    >>> import numpy as np
    >>> u, A, B = np.ones((2, 6, 5)), -np.ones((6, 4)), np.ones((2, 3, 4, 5))
    >>> given = selective_scan_arguments(u, u, A, B, B[:, 0])
    >>> given["u"].shape, given["B"].shape, given["C"].shape
    ((2, 5, 6), (2, 5, 6, 4), (2, 5, 4))
    """
    check_flag("selective_scan_arguments", delta_softplus=delta_softplus)
    needed = {"u": u, "delta": delta, "A": A, "B": B, "C": C}
    optional = {"D": D, "z": z, "delta_bias": delta_bias}
    given = needed | {name: x for name, x in optional.items() if x is not None}
    for name, x in given.items():
        check_array("selective_scan_arguments", name, x)
    xp = namespace(*given.values())
    _check_sequences(u, delta, A, z)
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = softplus(delta)
    complex_pairs = is_complex(A)
    arguments = {
        "u": xp.permute_dims(u, (0, 2, 1)),
        "delta": xp.permute_dims(delta, (0, 2, 1)),
        "A": A,
        "B": _input_or_output("B", B, u.shape, A.shape, complex_pairs),
        "C": _input_or_output("C", C, u.shape, A.shape, complex_pairs),
    }
    if D is not None:
        arguments["D"] = D
    if z is not None:
        arguments["z"] = xp.permute_dims(z, (0, 2, 1))
    return arguments


def _check_sequences(u: Array, delta: Array, A: Array, z: Array | None) -> None:
    if u.ndim != 3 or A.ndim != 2 or A.shape[0] != u.shape[1]:
        msg = f"u has shape {tuple(u.shape)} and A {tuple(A.shape)}; expected (batch, H, L), (H, N)"
        raise SSMError(msg)
    for name, array in (("delta", delta), ("z", z)):
        if array is not None and tuple(array.shape) != tuple(u.shape):
            msg = f"{name} has shape {tuple(array.shape)}; expected that of u, {tuple(u.shape)}"
            raise SSMError(msg)


def _input_or_output(
    name: str, B: Array, u_shape: tuple[int, ...], A_shape: tuple[int, ...], complex_pairs: bool
) -> Array:
    """Return B or C with time before channels and states, groups repeated over their channels."""
    xp = namespace(B)
    (batch, H, L), N = u_shape, A_shape[1]
    if B.ndim == 2 and tuple(B.shape) == (H, N):
        return B[None, None, :, :]
    length = 2 * L if complex_pairs else L
    groups = B.shape[1] if B.ndim == 4 else 1
    shared = tuple(B.shape) == (batch, N, length)
    grouped = tuple(B.shape) == (batch, groups, N, length) and groups > 0 and H % groups == 0
    if not (shared or grouped):
        msg = (
            f"{name} has shape {tuple(B.shape)}; expected ({H}, {N}), ({batch}, {N}, {length}) or "
            f"({batch}, G, {N}, {length}) with G dividing {H}"
        )
        raise SSMError(msg)
    if complex_pairs:
        B = _join_interleaved(B, L)
    if shared:
        return xp.permute_dims(B, (0, 2, 1))
    return xp.repeat(xp.permute_dims(B, (0, 3, 1, 2)), H // groups, axis=2)


def _join_interleaved(B: Array, L: int) -> Array:
    """Return complex (..., L) from real (..., 2L) = re, im, re, im, ..."""
    xp = namespace(B)
    pair = xp.reshape(B, (*B.shape[:-1], L, 2))
    complex_pair = xp.astype(pair, complex_dtype(xp, pair.dtype))
    return complex_pair[..., 0] + complex_pair[..., 1] * 1j

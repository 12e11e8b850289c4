"""Padding on either side: rows turned to the right and back, and what their last step is."""

from __future__ import annotations

from ssmcore import arrays
from ssmcore.errors import SSMError, check_choice
from ssmcore.typing import Array

__all__ = ["check_padding", "last_valid", "turned"]


def check_padding(owner: str, padding: str, lengths: Array | None) -> None:
    """Raise SSMError unless ``padding`` is a side, "left" with lengths."""
    check_choice(owner, "padding", padding, ("right", "left"))
    if padding == "left" and lengths is None:
        msg = f"{owner}: padding is 'left' without lengths; expected the valid steps of every row"
        raise SSMError(msg)


def turned(x: Array, lengths: Array, axis: int, back: bool = False) -> Array:
    """Turn rows of padding on the left to padding on the right, or ``back``.

    ``axis`` is the time axis, -1 or -2.
    """
    xp = arrays.namespace(x)
    L = x.shape[axis]
    if L == 0:
        return x
    time = arrays.arange(x, L, lengths.dtype)
    shift = lengths if back else L - lengths
    index = (time + shift[..., None]) % L
    if axis == -2:
        index = index[..., None]
    whole = xp.astype(x, xp.int32) if x.dtype == xp.bool else x
    index = xp.broadcast_to(index, x.shape)
    return xp.astype(xp.take_along_axis(whole, index, axis=axis), x.dtype, copy=False)


def last_valid(x: Array, lengths: Array | None) -> Array:
    """Return the last step of x (..., L, H) that is not padding, zero where there is none."""
    xp = arrays.namespace(x)
    if x.shape[-2] == 0:
        return xp.zeros((*x.shape[:-2], x.shape[-1]), dtype=x.dtype, device=arrays.device(x))
    if lengths is None:
        return x[..., -1, :]
    some = lengths[..., None] > 0
    at = xp.where(some, lengths[..., None] - 1, xp.zeros_like(lengths[..., None]))[..., None]
    index = xp.broadcast_to(at, (*x.shape[:-2], 1, x.shape[-1]))
    last = xp.take_along_axis(x, index, axis=-2)[..., 0, :]
    return xp.where(some, last, xp.zeros_like(last))

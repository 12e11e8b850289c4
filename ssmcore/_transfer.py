"""One array from one library, device and dtype to another: what ``ssmcore.move`` does to each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import array_api_compat
import numpy as np

from ssmcore import arrays
from ssmcore.errors import SSMError
from ssmcore.typing import Array

if TYPE_CHECKING:
    from ssmcore.backend import Backend

__all__ = ["dtype_name", "transfer"]

WIDE = ("float64", "complex128", "int64", "uint64")
DLPACK = ("bfloat16", "float16", "float32", "float64")


def dtype_name(x: Array) -> str:
    """Return the standard's name of the dtype of ``x``, such as ``"float32"``."""
    return str(x.dtype).rsplit(".", 1)[-1]


def transfer(x: Array, source: Backend, target: Backend, device: Any, dtype: str | None) -> Array:
    """Copy ``x``; what a library says of a device it cannot use becomes one SSMError."""
    if source is not target:
        source.check_values(x)
    name = _checked_dtype(x, target, dtype)
    try:
        return _copy(x, source, target, device, name)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        if device is None:
            raise
        msg = (
            f"device {device!r} asked of backend {target.name!r}, which has {target.devices()}; "
            f"the library says: {error}"
        )
        raise SSMError(msg) from error


def _checked_dtype(x: Array, target: Backend, dtype: str | None) -> str:
    """Return the name of the dtype of the copy, which ``target`` must have."""
    name = dtype or dtype_name(x)
    if name in WIDE and not target.has_float64():
        narrow = 'ask for dtype="float32"' if "int" not in name else "convert it to 32 bit first"
        msg = (
            f"{name} asked of backend {target.name!r}, whose 64-bit types are off; switch them on "
            'before any array is made (JAX: jax.config.update("jax_enable_x64", True)) '
            f"or {narrow}"
        )
        raise SSMError(msg)
    if dtype is not None and arrays.is_complex(x):
        msg = f"dtype {dtype!r} asked of a complex array; expected real ones, complex as (re, im)"
        raise SSMError(msg)
    if not hasattr(target.xp, name):
        msg = f"backend {target.name!r} has no dtype {name!r}; ask for dtype='float32'"
        raise SSMError(msg)
    return name


def _copy(x: Array, source: Backend, target: Backend, device: Any, name: str) -> Array:
    dtype = getattr(target.xp, name)
    if source is target:
        out = target.xp.astype(x, dtype, copy=True)
        return out if device is None else array_api_compat.to_device(out, device)
    by_dlpack = device is None and _has_dlpack(x, source, target)
    out = _by_dlpack(x, source, target) if by_dlpack else _by_host(x, source, target, device)
    return target.xp.astype(out, dtype, copy=False)


def _has_dlpack(x: Array, source: Backend, target: Backend) -> bool:
    """Whether both libraries have the dtype of ``x`` and its device, the default one of the target.

    NumPy is the host itself.
    """
    name = dtype_name(x)
    if "numpy" in (source.name, target.name) or name not in DLPACK:
        return False
    if not hasattr(target.xp, name) or (name == "float64" and not target.has_float64()):
        return False
    here = _dlpack_device(x)
    return here is not None and here == _dlpack_device(target.xp.empty(0))


def _dlpack_device(x: Array) -> tuple[Any, int] | None:
    """Return the device of ``x`` as DLPack numbers it, or None where it cannot be exported."""
    if not hasattr(x, "__dlpack_device__"):
        return None
    try:
        kind, index = x.__dlpack_device__()
    except BufferError:  # the standard's answer, such as for an array on several devices
        return None
    return kind, index


def _by_dlpack(x: Array, source: Backend, target: Backend) -> Array:
    """Copy on the device. The first copy is compact, aligned and free of pending signs.

    DLPack knows no gradients, and would lose the lazy minus of torch's ``imag(conj(z))``.
    """
    x = x.detach() if hasattr(x, "detach") else x
    compact = source.xp.asarray(x, copy=True)
    return target.xp.asarray(target.xp.from_dlpack(compact), copy=True)


def _by_host(x: Array, source: Backend, target: Backend, device: Any) -> Array:
    host = source.to_numpy(x)
    if dtype_name(x) == "bfloat16":  # exact, and NumPy has no bfloat16 of its own
        host = host.astype(np.float32)
    return target.from_numpy(host, device)

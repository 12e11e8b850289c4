"""The form all kernels work on: leading axes flattened to one, R rows."""

from __future__ import annotations

import math
from typing import Any

from ssmcore import arrays

__all__ = ["REAL_NAMES", "as_rows", "broadcast_rows", "real_name"]

REAL_NAMES = {4: "float", 8: "double"}


def real_name(x: Any) -> str:
    """Return what CUDA C calls the real numbers that ``x`` consists of."""
    return REAL_NAMES[x.itemsize // (2 if arrays.is_complex(x) else 1)]


def as_rows(x: Any, axes: int) -> Any:
    """Return ``x`` with all but its last ``axes`` axes flattened to one."""
    lead, tail = x.shape[: x.ndim - axes], x.shape[x.ndim - axes :]
    return arrays.namespace(x).reshape(x, (math.prod(lead), *tail))


def broadcast_rows(x: Any, lead: tuple[int, ...], axes: int) -> Any:
    """Return ``x``, which broadcasts to (*lead, ...), as (R, ...), or (1, ...) if rows share it.

    The last ``axes`` axes stay as they are; those that ``x`` lacks are 1.
    """
    xp = arrays.namespace(x)
    x = xp.reshape(x, (*[1] * (len(lead) + axes - x.ndim), *x.shape))
    if math.prod(x.shape[: len(lead)]) == 1:
        return xp.reshape(x, (1, *x.shape[len(lead) :]))
    return as_rows(xp.broadcast_to(x, (*lead, *x.shape[len(lead) :])), axes)

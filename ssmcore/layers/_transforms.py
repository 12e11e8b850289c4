"""The transforms under which a layer stores a positive quantity, and their inverses.

S4 trains f^-1 of its step sizes and of the real and imaginary parts of its eigenvalues; f is one
of TRANSFORMS. ``transform`` is what a layer and a checkpoint reader evaluate, ``inverse`` what an
initialisation stores.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore import arrays
from ssmcore.errors import SSMError
from ssmcore.initialization import inverse_softplus
from ssmcore.typing import Array

__all__ = ["FLOOR", "TRANSFORMS", "inverse", "transform"]

TRANSFORMS = ("exp", "softplus", "relu", "sigmoid", "none")

FLOOR = 1e-4
"""What "relu" adds, and the least quantity that is inverted: exp cannot reach 0."""


def transform(x: Array, kind: str) -> Array:
    """Return f(x): e^x, log(1 + e^x), max(x, 0) + 1e-4, 1 / (1 + e^-x), or x itself.

    Examples
    --------
    >>> import numpy as np
    >>> transform(np.asarray([-1.0, 2.0]), "relu")
    array([1.0000e-04, 2.0001e+00])
    """
    xp = arrays.namespace(x)
    if kind == "exp":
        return xp.exp(x)
    if kind == "softplus":
        return arrays.softplus(x)
    if kind == "relu":
        return xp.where(x > 0, x, xp.zeros_like(x)) + FLOOR
    return arrays.sigmoid(x) if kind == "sigmoid" else x


def inverse(name: str, value: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Return the x with f(x) = max(value, 1e-4), in float64; of "none" the value itself.

    Of "relu" x is at least 1e-4, where its gradient is not 0.

    Raises
    ------
    SSMError
        A value of 1 or more for "sigmoid", naming the parameter ``name``.

    Examples
    --------
    >>> import numpy as np
    >>> inverse("dt", np.asarray([0.5]), "softplus").round(6)
    array([-0.432752])
    """
    if kind == "none":
        return value
    value = np.maximum(value, FLOOR)
    if kind == "exp":
        return np.asarray(np.log(value))
    if kind == "softplus":
        return inverse_softplus(value)
    if kind == "relu":
        return np.maximum(value - FLOOR, FLOOR)
    if value.max() >= 1:
        msg = (
            f"{name} starts at up to {value.max()!r}, and transform 'sigmoid' stays below 1; "
            "expected 'exp', 'softplus', 'relu' or 'none'"
        )
        raise SSMError(msg)
    return np.asarray(np.log(value) - np.log1p(-value))

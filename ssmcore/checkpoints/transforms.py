"""The positive transforms under which state-spaces/s4 stores time steps and eigenvalues."""

from __future__ import annotations

import numpy as np

from ssmcore.errors import SSMError

__all__ = ["TRANSFORMS", "log_positive", "transform"]

TRANSFORMS = ("none", "exp", "relu", "sigmoid", "softplus")


def transform(value: np.ndarray, kind: str) -> np.ndarray:
    """Return the (positive) number that the original makes of a stored parameter."""
    if kind == "exp":
        return np.asarray(np.exp(value))
    if kind == "relu":
        return np.asarray(np.maximum(value, 0.0) + 1e-4)
    if kind == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0.0, -value)))
    return np.asarray(np.logaddexp(0.0, value)) if kind == "softplus" else value


def log_positive(name: str, value: np.ndarray, kind: str) -> np.ndarray:
    """Return the logarithm of the transformed parameter; without detour for kind="exp"."""
    if kind == "exp":
        return value
    positive = transform(value, kind)
    if not (positive > 0).all():
        msg = f"read_s4: {name} has {positive.min()} with transform {kind!r}; expected > 0"
        raise SSMError(msg)
    return np.asarray(np.log(positive))

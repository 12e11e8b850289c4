"""The logarithm of what state-spaces/s4 stores under a positive transform."""

from __future__ import annotations

import numpy as np

from ssmcore.errors import SSMError
from ssmcore.layers._transforms import transform

__all__ = ["log_positive"]


def log_positive(name: str, value: np.ndarray, kind: str) -> np.ndarray:
    """Return the logarithm of the transformed parameter; without detour for kind="exp"."""
    if kind == "exp":
        return value
    positive = transform(value, kind)
    if not (positive > 0).all():
        msg = f"read_s4: {name} has {positive.min()} with transform {kind!r}; expected > 0"
        raise SSMError(msg)
    return np.asarray(np.log(positive))

"""What the continuous-time layers share: step sizes, tied copies, complex draws."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ssmcore import arrays
from ssmcore._arguments import check_count, check_flag, check_positive
from ssmcore.errors import SSMError
from ssmcore.typing import Array

__all__ = [
    "check_copies",
    "check_even",
    "check_flag",
    "check_steps",
    "complex_normal",
    "tiled",
]


def complex_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Return standard complex normal numbers (variance 1/2 per part) as (re, im) pairs."""
    return rng.standard_normal((*shape, 2)) * math.sqrt(0.5)


def tiled(x: Array, copies: int, axis: int = 0) -> Array:
    """Repeat ``x`` whole, ``copies`` times along ``axis``: feature h uses row h mod n_ssm."""
    return x if copies == 1 else arrays.namespace(x).concat([x] * copies, axis=axis)


def check_even(owner: str, d_state: int) -> None:
    """Raise SSMError unless d_state is a positive even number."""
    check_count(owner, d_state=d_state)
    if d_state % 2:
        msg = (
            f"{owner}: d_state is {d_state}; expected an even number, "
            "because the states come in conjugate pairs of which one is stored"
        )
        raise SSMError(msg)


def check_steps(owner: str, dt_min: float, dt_max: float, dt_scale: float) -> None:
    """Raise SSMError unless 0 < dt_min <= dt_max and dt_scale > 0, all finite."""
    check_positive(owner, dt_min=dt_min, dt_max=dt_max, dt_scale=dt_scale)
    if dt_min > dt_max:
        msg = f"{owner}: dt_min {dt_min!r} is above dt_max {dt_max!r}; expected dt_min <= dt_max"
        raise SSMError(msg)


def check_copies(owner: str, n_ssm: int | None, d_model: int) -> int:
    """Return the number of separate systems, d_model when None; SSMError unless it divides."""
    copies = d_model if n_ssm is None else n_ssm
    check_count(owner, n_ssm=copies)
    if d_model % copies:
        msg = f"{owner}: n_ssm is {copies}; expected a divisor of d_model = {d_model}"
        raise SSMError(msg)
    return copies

"""Checks on arguments that are no arrays: numbers, flags, random generators."""

from __future__ import annotations

import numbers
import operator
import sys
from typing import Any

import numpy as np

from ssmcore.errors import SSMError

__all__ = [
    "check_count",
    "check_flag",
    "check_number",
    "check_positive",
    "checked_generator",
    "is_finite",
    "plain",
]


def plain(value: Any) -> Any:
    """Return a number or flag, NumPy's among them, as Python's own; anything else as it is.

    Examples
    --------
    >>> plain(np.int64(4)), plain(np.float32(0.5)), plain(np.True_), plain("zoh")
    (4, 0.5, True, 'zoh')
    """
    if type(value) in (bool, int, float):  # torch.compile follows nothing further down
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, numbers.Integral):
        return operator.index(value)
    return float(value) if isinstance(value, numbers.Real) else value


def is_finite(value: Any) -> bool:
    """Whether ``value`` is a real number that a float can hold; True and False are none."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and abs(plain(value)) <= sys.float_info.max


def check_flag(owner: str, **values: Any) -> None:
    """Raise SSMError unless all values are True or False."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            msg = f"{owner}: {name} is {value!r:.50}; expected True or False"
            raise SSMError(msg)


def check_count(owner: str, **values: Any) -> None:
    """Raise SSMError unless all values are whole numbers of at least 1."""
    for name, value in values.items():
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
        if not whole or int(value) < 1:
            msg = f"{owner}: {name} is {value!r}; expected a whole number of at least 1"
            raise SSMError(msg)


def check_number(owner: str, **values: Any) -> None:
    """Raise SSMError unless all values are finite numbers."""
    for name, value in values.items():
        if not is_finite(value):
            msg = f"{owner}: {name} is {value!r}; expected a finite number"
            raise SSMError(msg)


def check_positive(owner: str, **values: Any) -> None:
    """Raise SSMError unless all values are finite and positive."""
    for name, value in values.items():
        if not (is_finite(value) and value > 0):
            msg = f"{owner}: {name} is {value!r}; expected a finite number above 0"
            raise SSMError(msg)


def checked_generator(owner: str, rng: object) -> np.random.Generator:
    """Return ``rng``; SSMError unless it is a random generator of NumPy."""
    if not isinstance(rng, np.random.Generator):
        msg = (
            f"{owner}: rng is {rng!r:.50}; expected a generator, as from "
            "numpy.random.default_rng(seed)"
        )
        raise SSMError(msg)
    return rng

"""Hyper-parameters: how they are declared and checked, and what an optimiser is told."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, NamedTuple, TypeVar, dataclass_transform

from ssmcore.errors import SSMError, check_choice

__all__ = ["ParamGroup", "check_count", "check_number", "check_positive", "hyperparameters"]

Kind = TypeVar("Kind", bound=type)


class ParamGroup(NamedTuple):
    """Parameters to be treated alike by an optimiser.

    ``lr`` is an own learning rate, ``lr_scale`` a factor on the global one; None means the global
    one. Names are dotted. ``keep_float32``: never train these in half precision.
    """

    names: tuple[str, ...]
    weight_decay: bool
    lr: float | None = None
    lr_scale: float | None = None
    keep_float32: bool = True


def check_positive(owner: str, **values: float) -> None:
    """Raise SSMError unless all values are finite and positive."""
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value > 0):
            msg = f"{owner}: {name} is {value!r}; expected a finite number above 0"
            raise SSMError(msg)


def check_count(owner: str, **values: int) -> None:
    """Raise SSMError unless all values are whole numbers of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            msg = f"{owner}: {name} is {value!r}; expected a whole number of at least 1"
            raise SSMError(msg)


def check_number(owner: str, **values: float) -> None:
    """Raise SSMError unless all values are finite numbers."""
    for name, value in values.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value)):
            msg = f"{owner}: {name} is {value!r}; expected a finite number"
            raise SSMError(msg)


@dataclass_transform(frozen_default=True)
def hyperparameters(kind: Kind) -> Kind:
    """Make a frozen dataclass whose constructor answers a misspelt option with the nearest one."""
    made: Any = dataclasses.dataclass(frozen=True)(kind)
    construct = made.__init__
    names = [field.name for field in dataclasses.fields(made)]

    @functools.wraps(construct)
    def __init__(self: Any, *args: Any, **options: Any) -> None:  # noqa: N807
        for option in options:
            check_choice(made.__name__, "option", option, names)
        construct(self, *args, **options)

    made.__init__ = __init__
    return made  # type: ignore[no-any-return]

"""Hyper-parameters: how they are declared and checked, and what an optimiser is told."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar, dataclass_transform

from ssmcore._arguments import check_count, check_number, check_positive
from ssmcore.errors import SSMError, check_choice

__all__ = [
    "ParamGroup",
    "check_count",
    "check_number",
    "check_positive",
    "checked_arguments",
    "hyperparameters",
]

Kind = TypeVar("Kind", bound=type)
Method = TypeVar("Method", bound=Callable[..., Any])


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


def _check_arguments(
    owner: str, signature: inspect.Signature, args: tuple[Any, ...], options: Mapping[str, Any]
) -> None:
    """Raise SSMError, with the nearest name of a misspelt option, unless the call fits."""
    for option in options:
        check_choice(owner, "option", option, signature.parameters)
    try:
        signature.bind(*args, **options)
    except TypeError as error:
        msg = f"{owner}: {error}, in a call with {len(args)} unnamed; expected {signature}"
        raise SSMError(msg) from None


def checked_arguments(method: Method) -> Method:
    """Have a method of a layer answer arguments that do not fit its signature with one SSMError."""
    own = list(inspect.signature(method).parameters.values())[1:]
    signature = inspect.Signature([p.replace(annotation=p.empty) for p in own])

    @functools.wraps(method)
    def call(self: Any, *args: Any, **options: Any) -> Any:
        _check_arguments(type(self).__name__, signature, args, options)
        return method(self, *args, **options)

    return call  # type: ignore[return-value]


@dataclass_transform(frozen_default=True)
def hyperparameters(kind: Kind) -> Kind:
    """Make a frozen dataclass whose constructor answers a misspelt option with the nearest one."""
    made: Any = dataclasses.dataclass(frozen=True)(kind)
    made.__init__ = checked_arguments(made.__init__)
    return made  # type: ignore[no-any-return]

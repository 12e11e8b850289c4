"""A complete third-party array library and its ssmcore backend, in one file; for tests.

The library follows the array API standard by boxing NumPy arrays, and shares no type with NumPy:
what is not unboxed by hand is an error. ``BACKEND`` is what its entry point names.
"""

from __future__ import annotations

import operator
from types import ModuleType
from typing import Any

import array_api_compat.numpy as inner
import numpy as np

from ssmcore.backend import Backend

__all__ = ["BACKEND", "Box", "BoxedBackend"]


class Box:
    """The library's array."""

    __array_ufunc__ = None

    def __init__(self, value: Any) -> None:
        self.value = np.asarray(value)

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        return SPACE

    def __array__(self, *_: Any, **__: Any) -> Any:
        msg = "a Box is no NumPy array"
        raise TypeError(msg)

    def __getattr__(self, name: str) -> Any:
        if name in ("dtype", "shape", "ndim", "size"):
            return getattr(self.value, name)
        raise AttributeError(name)

    @property
    def device(self) -> str:
        return "cpu"

    def __getitem__(self, key: Any) -> Box:
        return Box(self.value[_open(key)])

    def __bool__(self) -> bool:
        return bool(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __float__(self) -> float:
        return float(self.value)


def _open(x: Any) -> Any:
    if isinstance(x, Box):
        return x.value
    if isinstance(x, tuple | list):
        return type(x)(map(_open, x))
    return x


def _close(x: Any) -> Any:
    if isinstance(x, np.ndarray | np.generic):
        return Box(x)
    if isinstance(x, tuple | list):
        return type(x)(map(_close, x))
    return x


def _boxed(function: Any) -> Any:
    def call(*given: Any, **options: Any) -> Any:
        options = {name: _open(x) for name, x in options.items()}
        return _close(function(*_open(given), **options))

    return call


class Space:
    """The library's namespace, or one of its extensions."""

    __name__ = "boxed"  # not that of the module inside: namespaces are told apart by it

    def __init__(self, module: Any) -> None:
        self.module = module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.module, name)
        if isinstance(found, ModuleType):
            return Space(found)
        plain = isinstance(found, type) or not callable(found) or name == "__array_namespace_info__"
        return found if plain else _boxed(found)


SPACE = Space(inner)

for _name in (
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor"),
    *("lshift", "rshift"),
):
    _function = getattr(operator, f"__{_name}__")
    setattr(Box, f"__{_name}__", _boxed(_function))
    setattr(Box, f"__r{_name}__", _boxed(lambda x, y, f=_function: f(y, x)))
for _name in ("neg", "pos", "abs", "invert", "lt", "le", "gt", "ge", "eq", "ne"):
    setattr(Box, f"__{_name}__", _boxed(getattr(operator, f"__{_name}__")))


class BoxedBackend(Backend):
    """The library as an ssmcore backend."""

    name = "boxed"
    library = "boxed"
    install = "pip install boxed"

    @property
    def xp(self) -> Any:
        return SPACE

    def owns(self, x: object) -> bool:
        return isinstance(x, Box)

    def to_numpy(self, x: Box) -> np.ndarray[Any, Any]:
        return x.value.copy()


BACKEND = BoxedBackend()

"""A failure as a snippet of Python that can be pasted and run, with its inputs written out.

``running.call`` keeps its last calls here. When a test fails the snippet is made from them:

* a number out of its tolerance (``Mismatch``): the call that returned it, and the assertion;
* an exception of the library: the call that raised it;
* anything else, such as a comparison of several calls: the test itself, run again.

Hypothesis runs its smallest failing example last, so its calls are the ones kept.
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import importlib
import inspect
import io
import pprint
import re
import textwrap
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

import ssmcore
from ssmcore import backend
from ssmcore.layers import Layer

__all__ = ["HISTORY", "Call", "layer_source", "recorded", "snippet"]

Numbers = np.ndarray[Any, Any]
LITERAL = 128
"""Arrays of more elements than this are written packed, not as numbers."""
LONGEST = 200_000
"""A snippet of more characters than this gives way to one that runs the test again."""


class Mismatch(NamedTuple):
    """A number that is out of its tolerance."""

    error: AssertionError
    got: Any
    expected: Any
    tolerance: float


@dataclasses.dataclass
class Call:
    """One call of the library: inputs in NumPy, then outputs in NumPy or what was raised."""

    library: str
    fn: Callable[..., Any]
    given: tuple[Any, ...]
    named: dict[str, Any]
    out: Any = None
    raised: BaseException | None = None


class History:
    """The last calls of the library in this test, how many there were, and what was wrong."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget everything: a new test begins."""
        self.calls: deque[Call] = deque(maxlen=8)
        self.mismatch: Mismatch | None = None
        self.count = 0

    def add(self, call: Call) -> None:
        """Keep a call."""
        self.calls.append(call)
        self.count += 1

    def refuse(self, message: str, got: Any, expected: Any, tolerance: float) -> AssertionError:
        """Return the error to raise for a number out of its tolerance, and keep the number."""
        error = AssertionError(message)
        self.mismatch = Mismatch(error, got, expected, tolerance)
        return error


HISTORY = History()


class UnwritableError(Exception):
    """A function or a value that no short piece of Python gives."""


def snippet(error: BaseException, again: list[str]) -> str:
    """Return Python that fails as ``error`` did; ``again`` are pytest's arguments for the test."""
    while isinstance(error, BaseExceptionGroup):  # of several failures the last ran last
        error = error.exceptions[-1]
    heading = textwrap.indent(textwrap.fill(str(error)[:600], 96), "# ") + "\n"
    try:
        text = heading + _replay(error)
    except UnwritableError:
        text = ""
    return text if 0 < len(text) <= LONGEST else heading + _rerun(again)


def _rerun(again: list[str]) -> str:
    arguments = "".join(f"    {argument!r},\n" for argument in again)
    return f"import pytest\n\nraise SystemExit(pytest.main([\n{arguments}]))\n"


def _replay(error: BaseException) -> str:
    """Return the call that failed; UnwritableError where no single call did."""
    for call in reversed(HISTORY.calls):
        if call.raised is not None and call.raised in (error, error.__context__):
            return _program(call, [])
    wrong = HISTORY.mismatch
    if wrong is not None and wrong.error is error:
        for call in reversed(HISTORY.calls):
            for place, x in _leaves(call.out, "out"):
                index = _where(x, wrong.got)
                if index is not None:
                    return _program(call, _assertion(place, index, wrong))
    raise UnwritableError


def _where(x: Numbers, value: Any) -> tuple[int, ...] | None:
    """Return a place in ``x`` that holds ``value`` to the last bit; zero and NaN: the only one."""
    if x.dtype != np.asarray(value).dtype:
        return None
    found = np.argwhere((x == value) | ((x != x) & (value != value)))
    common = value == 0 or value != value
    return tuple(map(int, found[0])) if len(found) == 1 or (len(found) and not common) else None


def _leaves(tree: Any, place: str) -> Iterator[tuple[str, Numbers]]:
    """Yield the arrays of an output, each with the expression that gives it."""
    if isinstance(tree, tuple | list | dict):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, value in items:
            yield from _leaves(value, f"{place}[{key!r}]")
    elif tree is not None:
        yield place, np.asarray(tree)


def _assertion(place: str, index: tuple[int, ...], wrong: Mismatch) -> list[str]:
    at = ", ".join(map(str, index)) if index else "()"
    return [
        f"got = backend.to_numpy({place})[{at}].item()",
        f"expected = {_number(wrong.expected)}",
        f'assert abs(got - expected) <= {wrong.tolerance!r}, f"got {{got}}, expected {{expected}}"',
    ]


def _number(x: Any) -> str:
    value = np.asarray(x).item()
    return f"complex({value.real!r}, {value.imag!r})" if isinstance(value, complex) else repr(value)


def _program(call: Call, after: list[str]) -> str:
    """Return the whole snippet: imports, inputs, the call, ``after``."""
    imports, function = _function(call.fn)
    inputs, arguments = [], []
    for name, keyword, value in _arguments(call):
        text = _value(value)
        if isinstance(value, dict | np.ndarray):
            inputs.append(f"{name} = {text}")
            text = name
        arguments.append(f"{name}={text}" if keyword else text)
    run = [f"run = {function}", f"out = run({', '.join(arguments)})"]
    body = "\n".join([*inputs, *run, *after]) + "\n"
    head = ["import numpy as np", "", "import ssmcore as ssm", "from ssmcore import backend"]
    names = [name for name in ("inf", "nan") if re.search(rf"(?<![\w\"'.]){name}\b", body)]
    head[1:1] = [f"from numpy import {', '.join(names)}"] if names else []
    head[:0] = [line for part, line in STANDARD.items() if part in body]
    library = [f"library = backend.load({call.library!r})", "library.enable_float64()"]
    helpers = [code for name, code in HELPERS.items() if f"{name}(" in body]
    return "\n".join([*head, *imports, "", *library, *helpers, ""]) + body


STANDARD = {"functools.": "import functools", "packed(": "import base64, io, zlib"}
HELPERS = {
    "array": "array = lambda x, dtype: library.from_numpy(np.array(x, dtype))",
    "pairs": "pairs = lambda x, dtype: library.from_numpy("
    "np.array(x, np.zeros(0, dtype).real.dtype).view(dtype)[..., 0])",
    "packed": "packed = lambda text: library.from_numpy("
    "np.load(io.BytesIO(zlib.decompress(base64.b85decode(text)))))",
}


def _arguments(call: Call) -> Iterator[tuple[str, bool, Any]]:
    """Yield (name, whether it is passed by name, value)."""
    names = list(inspect.signature(call.fn).parameters)
    for k, value in enumerate(call.given):
        yield (names[k] if k < len(names) else f"x{k}"), False, value
    for name, value in call.named.items():
        yield name, True, value


def _value(x: Any) -> str:
    """Return Python that gives ``x``, arrays as the library's."""
    if isinstance(x, dict):
        return "{" + ", ".join(f"{key!r}: {_value(value)}" for key, value in x.items()) + "}"
    if isinstance(x, np.ndarray):
        return _array(x)
    if isinstance(x, tuple | list):
        inner = ", ".join(map(_value, x))
        return f"[{inner}]" if isinstance(x, list) else f"({inner}{',' * (len(x) == 1)})"
    if isinstance(x, np.generic):
        return _number(x)
    if x is None or isinstance(x, bool | int | float | str):
        return repr(x)
    raise UnwritableError


def _array(x: Numbers) -> str:
    if 0 < x.size <= LITERAL and x.dtype.kind == "c":
        return f"pairs({_list(_pairs(x))}, {x.dtype.name!r})"
    if 0 < x.size <= LITERAL:
        return f"array({_list(x)}, {x.dtype.name!r})"
    file = io.BytesIO()
    np.save(file, x, allow_pickle=False)
    text = base64.b85encode(zlib.compress(file.getvalue(), 9)).decode()
    lines = "\n".join(f"    {text[k : k + 90]!r}" for k in range(0, len(text), 90))
    return f"packed(\n{lines}\n)"


def _list(x: Numbers) -> str:
    return pprint.pformat(x.tolist(), width=90, compact=True)


def _pairs(x: Numbers) -> Numbers:
    """Return real and imaginary part in a last axis: signs of zeros and infinities stay."""
    real = x.real.dtype
    return np.ascontiguousarray(x)[..., None].view(real)


def _function(fn: Callable[..., Any]) -> tuple[list[str], str]:
    """Return the imports and the expression that give ``fn``."""
    inner = inspect.unwrap(fn)
    source = getattr(inner, "source", None)
    if callable(source):
        return [], str(source())
    if isinstance(inner, functools.partial):
        imports, text = _function(inner.func)
        given = [_value(x) for x in inner.args]
        given += [f"{key}={_value(x)}" for key, x in inner.keywords.items()]
        return imports, f"functools.partial({', '.join([text, *given])})"
    if isinstance(inner, Layer):
        return [], layer_source(inner)
    owner = getattr(inner, "__self__", None)
    if isinstance(owner, Layer):
        return [], f"{layer_source(owner)}.{inner.__name__}"
    module, name = getattr(inner, "__module__", ""), getattr(inner, "__qualname__", "")
    if getattr(ssmcore, name, None) is inner:
        return [], f"ssm.{name}"
    if name.isidentifier() and getattr(importlib.import_module(module), name, None) is inner:
        return [f"from {module} import {name}"], name
    raise UnwritableError


def layer_source(layer: Layer) -> str:
    """Return the expression that makes ``layer``: what differs from the defaults."""
    kind = type(layer)
    if getattr(ssmcore, kind.__name__, None) is not kind:
        raise UnwritableError
    parts = []
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if not isinstance(value, Layer) and value == field.default:
            continue
        text = layer_source(value) if isinstance(value, Layer) else _value(value)
        parts.append(f"{field.name}={text}")
    return f"ssm.{kind.__name__}({', '.join(parts)})"


def recorded(x: Any) -> Any:
    """Return a NumPy copy of inputs, as they were before the call."""
    if isinstance(x, tuple):
        return tuple(map(recorded, x))
    if isinstance(x, dict):
        return {key: recorded(value) for key, value in x.items()}
    if hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, np.generic):
        return np.array(x if isinstance(x, np.ndarray) else backend.to_numpy(x))
    return x

"""How the tests call the library: every call also checks what must hold for all of them.

Inputs are left as they were; outputs have the expected dtype, and the library and device of the
inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings

from ssmcore import arrays, backend
from ssmcore.backend import Backend
from ssmcore.layers import Layer
from ssmcore_conformance.snippets import HISTORY, Call, layer_source, recorded

__all__ = ["call", "compiled", "examples", "flat", "host", "layouts", "precision"]

Numbers = np.ndarray[Any, Any]


def examples(library: Backend) -> int:
    """Return how many cases to try: an eighth on JAX, which compiles each shape anew."""
    most = settings.default.max_examples if settings.default else 1
    return max(2, most // 8) if library.name == "jax" else most


def precision(dtype: str, kind: str) -> str:
    """Return the real or complex dtype of the precision of ``dtype``."""
    if kind == "real":
        return dtype
    return {"float32": "complex64", "float64": "complex128"}[dtype]


def flat(out: Any) -> list[Any]:
    """Return the arrays of an output: an array, a tuple or a dict, nested."""
    if isinstance(out, tuple | list):
        return [x for part in out for x in flat(part)]
    return [] if out is None else [x for _, x in arrays.leaves(out)]


def host(tree: Any) -> Any:
    """Return an output in NumPy."""
    if isinstance(tree, tuple | list):
        return tuple(host(part) for part in tree)
    return None if tree is None else backend.to_numpy(tree)


def call(library: Backend, fn: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Return fn(*given, **named) in NumPy: NumPy arrays and dicts of them go in as the library's.

    Anything else (numbers, names, arrays of the library) goes in as it is. The call is kept for
    the snippet that a failure comes with.
    """

    def moved(x: Any) -> Any:
        if isinstance(x, dict):
            return {key: moved(value) for key, value in x.items()}
        return library.from_numpy(x) if isinstance(x, np.ndarray) else x

    inputs = [moved(x) for x in given]
    options = {key: moved(value) for key, value in named.items()}
    present = [x for x in [*inputs, *options.values()] if isinstance(x, dict) or _is_array(x)]
    before = host(tuple(present))
    made = Call(library.name, fn, recorded(given), recorded(named))
    out = _run(made, inputs, options)
    for old, new in zip(flat(before), flat(host(tuple(present))), strict=True):
        np.testing.assert_array_equal(old, new, err_msg="an input was changed")
    where = {str(arrays.device(x)) for x in flat(tuple(present))}
    for x in flat(out):
        assert backend.of(x).name == library.name
        assert {str(arrays.device(x))} == where
    return made.out


def _run(made: Call, inputs: list[Any], options: dict[str, Any]) -> Any:
    """Return what the call returns, and keep it, or what it raises, in the history."""
    HISTORY.add(made)
    try:
        out = made.fn(*inputs, **options)
    except Exception as error:
        made.raised = error
        raise
    made.out = host(out)
    return out


@dataclass(frozen=True)
class Run:
    """A layer in one mode as a function of arrays."""

    layer: Layer
    mode: str
    return_state: bool

    def __call__(
        self, params: Any, u: Any, state: Any = None, reset: Any = None, lengths: Any = None
    ) -> Any:
        options = {"reset": reset, "lengths": lengths, "return_state": self.return_state}
        return self.layer(params, u, state, mode=self.mode, **options)

    def source(self) -> str:
        """Return this function, compiled, in Python."""
        names = "params, u, state=None, reset=None, lengths=None"
        options = f"mode={self.mode!r}, reset=reset, lengths=lengths"
        end = ", return_state=True" if self.return_state else ""
        made = f"{layer_source(self.layer)}(params, u, state, {options}{end})"
        return f"library.compile(lambda {names}: {made})"


@functools.cache
def compiled(library: str, layer: Layer, mode: str, return_state: bool = False) -> Any:
    """Return ``layer`` in ``mode`` as a function of arrays, compiled once where that is done."""
    return backend.load(library).compile(Run(layer, mode, return_state))


def _is_array(x: Any) -> bool:
    return hasattr(x, "dtype") and hasattr(x, "shape")


def layouts(library: Backend, x: Numbers) -> dict[str, Any]:
    """Return ``x`` in the library, laid out in memory in other ways than the usual one."""
    xp = library.xp
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    frozen = x.copy()
    frozen.setflags(write=False)
    out = {
        "read-only": library.from_numpy(frozen),
        "strided": library.from_numpy(wide)[..., ::2],
        "backwards": library.from_numpy(np.flip(np.flip(x, -1).copy(), -1)),
    }
    if x.ndim > 1:
        out["transposed"] = xp.matrix_transpose(library.from_numpy(np.swapaxes(x, -1, -2)))
    if library.name == "numpy":
        out["read-only"] = frozen
        out["backwards"] = np.flip(np.flip(x, -1).copy(), -1)
    return out

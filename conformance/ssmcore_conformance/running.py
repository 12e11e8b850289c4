"""How the tests call the library: every call also checks what must hold for all of them.

Inputs are left as they were; outputs have the expected dtype, and the library and device of the
inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from hypothesis import settings

from ssmcore import arrays, backend
from ssmcore.backend import Backend
from ssmcore.layers import Layer

__all__ = ["call", "compiled", "examples", "flat", "grid", "host", "layouts", "precision"]

Numbers = np.ndarray[Any, Any]


def examples(library: Backend) -> int:
    """Return how many cases to try: few on JAX, which compiles each shape anew."""
    most = settings.default.max_examples if settings.default else 1
    return max(2, most // 8) if library.name == "jax" else most


def grid(seed: int, count: int, **axes: Any) -> Iterator[dict[str, Any]]:
    """Yield ``count`` combinations in which the values of each axis come about equally often."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name, values in axes.items():
        start = int(rng.integers(len(values)))
        order = [(start + k) % len(values) for k in range(count)]
        columns[name] = [values[order[k]] for k in rng.permutation(count)]
    for k in range(count):
        yield {name: column[k] for name, column in columns.items()}


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

    Anything else (numbers, names, arrays of the library) goes in as it is.
    """

    def moved(x: Any) -> Any:
        if isinstance(x, dict):
            return {key: moved(value) for key, value in x.items()}
        return library.from_numpy(x) if isinstance(x, np.ndarray) else x

    inputs = [moved(x) for x in given]
    options = {key: moved(value) for key, value in named.items()}
    present = [x for x in [*inputs, *options.values()] if isinstance(x, dict) or _is_array(x)]
    before = host(tuple(present))
    out = fn(*inputs, **options)
    for old, new in zip(flat(before), flat(host(tuple(present))), strict=True):
        np.testing.assert_array_equal(old, new, err_msg="an input was changed")
    where = {str(arrays.device(x)) for x in flat(tuple(present))}
    for x in flat(out):
        assert backend.of(x).name == library.name
        assert {str(arrays.device(x))} == where
    return host(out)


@functools.cache
def compiled(library: str, layer: Layer, mode: str, return_state: bool = False) -> Any:
    """Return ``layer`` in ``mode`` as a function of arrays, compiled once where that is done."""

    def run(params: Any, u: Any, state: Any = None, reset: Any = None, lengths: Any = None) -> Any:
        options = {"reset": reset, "lengths": lengths, "return_state": return_state}
        return layer(params, u, state, mode=mode, **options)

    return backend.load(library).compile(run)


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

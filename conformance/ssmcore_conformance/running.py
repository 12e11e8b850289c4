"""How the tests call the library: every call also checks what must hold for all of them.

Inputs are left as they were; outputs have the library and device of the inputs, and memory of
their own.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings

from ssmcore import arrays, backend
from ssmcore.backend import Backend
from ssmcore.layers import Layer
from ssmcore_conformance.snippets import HISTORY, Call, layer_source, recorded

__all__ = ["call", "compiled", "examples", "flat", "host", "laid_out", "precision"]

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
    """Return a copy of an output in NumPy."""
    if isinstance(tree, tuple | list):
        return tuple(host(part) for part in tree)
    return None if tree is None else arrays.tree_map(np.array, backend.to_numpy(tree))


def call(library: Backend, fn: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Return fn(*given, **named) in NumPy: NumPy arrays and dicts of them go in as the library's.

    Anything else (numbers, names, arrays of the library) goes in as it is. The call is kept for
    the snippet that a failure comes with.
    """

    def moved(x: Any) -> Any:
        if isinstance(x, dict):
            return {key: moved(value) for key, value in x.items()}
        strange = isinstance(x, np.ndarray) and not library.owns(x)
        return library.from_numpy(x) if strange else x

    inputs = [moved(x) for x in given]
    options = {key: moved(value) for key, value in named.items()}
    present = tuple(x for x in [*inputs, *options.values()] if isinstance(x, dict) or _is_array(x))
    before = host(present)
    made = Call(library.name, fn, recorded(given), recorded(named))
    out = _run(made, inputs, options)
    for old, new in zip(flat(before), flat(host(present)), strict=True):
        np.testing.assert_array_equal(old, new, err_msg="an input was changed")
    where = {str(arrays.device(x)) for x in flat(present)}
    for x in flat(out):
        assert backend.of(x).name == library.name
        assert {str(arrays.device(x))} == where
    _check_memory(flat(present), flat(out))
    return made.out


def _check_memory(inputs: list[Any], outputs: list[Any]) -> None:
    """Raise AssertionError where writing into an output would change an input.

    Where an output is empty no step was made, and a state may be handed on as it came.
    """
    if any(0 in x.shape for x in outputs):
        return
    for x, y in itertools.product(inputs, outputs):
        assert not _share_memory(x, y), "an output lies in the memory of an input"


def _share_memory(x: Any, y: Any) -> bool:
    """Whether two arrays of NumPy or torch share memory; no answer for other libraries: False."""
    if isinstance(x, np.ndarray) and isinstance(y, np.ndarray):
        return bool(np.shares_memory(x, y))
    if hasattr(x, "untyped_storage") and x.untyped_storage().nbytes() > 0:
        return bool(x.untyped_storage().data_ptr() == y.untyped_storage().data_ptr())
    return False


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


def laid_out(
    library: Backend, fn: Callable[..., Any], *given: Any, **named: Any
) -> Iterator[tuple[str, Any]]:
    """Yield a layout in memory and call(fn, ...), every NumPy array given laid out in that way."""
    for name, form in LAYOUTS.items():

        def moved(x: Any, form: Any = form) -> Any:
            return form(library, x) if isinstance(x, np.ndarray) else x

        inputs = map(moved, given)
        yield name, call(library, fn, *inputs, **{k: moved(x) for k, x in named.items()})


def _read_only(library: Backend, x: Numbers) -> Any:
    frozen = x.copy()
    frozen.setflags(write=False)
    return frozen if library.owns(frozen) else library.from_numpy(frozen)


def _strided(library: Backend, x: Numbers) -> Any:
    return library.from_numpy(np.repeat(x, 2, axis=-1))[..., ::2]


def _backwards(library: Backend, x: Numbers) -> Any:
    turned = np.flip(x, -1).copy()
    return np.flip(turned, -1) if library.owns(turned) else library.from_numpy(np.flip(turned, -1))


def _transposed(library: Backend, x: Numbers) -> Any:
    """Return ``x`` with its last axis slowest; one axis alone as a column of a matrix."""
    if x.ndim == 1:
        return library.from_numpy(np.stack((x, x), axis=-1))[:, 0]
    return library.xp.matrix_transpose(library.from_numpy(np.swapaxes(x, -1, -2).copy()))


def _conjugated(library: Backend, x: Numbers) -> Any:
    """Return ``x`` as a conjugate, which a library may leave to be taken later."""
    if x.dtype.kind != "c":
        return library.from_numpy(x)
    return library.xp.conj(library.from_numpy(np.conj(x)))


LAYOUTS = {
    "read-only": _read_only,
    "strided": _strided,
    "backwards": _backwards,
    "transposed": _transposed,
    "conjugated": _conjugated,
}

"""Checks on what a layer is called with: one clear error before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ssmcore import arrays, backend
from ssmcore._arguments import plain
from ssmcore.errors import SSMError
from ssmcore.primitives._checks import (
    broadcasts_to,
    check_array,
    check_kind,
    check_precision,
    check_shape,
    readable,
)
from ssmcore.typing import Array, State

__all__ = ["FLOATS", "check_lengths", "check_state", "check_step_sizes", "checked_batch_shape"]

FLOATS = ("float32", "float64")
"""The dtypes of parameters and states."""

STEP_SIZES = ("log_dt", "dt_proj.bias")


def checked_batch_shape(owner: str, batch_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ``batch_shape`` in Python's own integers; SSMError unless it is a tuple of sizes."""
    sizes = tuple(map(plain, batch_shape)) if isinstance(batch_shape, tuple) else (None,)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes):
        msg = (
            f"{owner}: batch_shape is {batch_shape!r:.50}; expected a tuple of whole numbers of "
            "at least 0, such as (2,)"
        )
        raise SSMError(msg)
    return sizes


def check_lengths(owner: str, lengths: Array | None, u: Array) -> None:
    """Raise SSMError unless ``lengths`` are integers in 0..L that broadcast to u's batch."""
    if lengths is None:
        return
    check_array(owner, "lengths", lengths)
    xp = arrays.namespace(lengths, u)
    if not xp.isdtype(lengths.dtype, "integral"):
        msg = f"{owner}: lengths has dtype {backend.dtype_name(lengths)}; expected integers"
        raise SSMError(msg)
    fits = broadcasts_to(lengths, tuple(u.shape[:-2]))
    check_shape(owner, "lengths", lengths, f"(...) = {tuple(u.shape[:-2])}", fits)
    library = backend.of(lengths)
    if library.concrete(lengths) and 0 not in lengths.shape:
        values = library.to_numpy(lengths)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > u.shape[-2]:
            msg = f"{owner}: lengths go from {low} to {high}; expected 0 to L = {u.shape[-2]}"
            raise SSMError(msg)


def check_step_sizes(owner: str, params: Mapping[str, Array], exponential: bool) -> None:
    """Raise SSMError for a step size that is readable and not finite; 0 by underflow is fine.

    ``params`` by dotted name; ``exponential``: the step size is exp(log_dt).
    """
    for key, x in params.items():
        if not (key.endswith(STEP_SIZES) and readable(x)):
            continue
        values = backend.to_numpy(x)
        limit = float(np.finfo(values.dtype).max)
        if key == "log_dt" and exponential:
            limit = math.log(limit)
        good = np.abs(values) <= limit
        if not good.all():
            msg = (
                f"{owner}: {key} holds {float(values[~good][0])!r}; expected finite numbers "
                f"within +-{limit:.4g}, so that the step size is finite"
            )
            raise SSMError(msg)


def check_state(
    owner: str, state: State | None, expected: Mapping[str, tuple[int, ...]], first: Array
) -> None:
    """Raise SSMError unless ``state`` fits ``expected`` shapes and the precision of ``first``."""
    if state is None:
        return
    if not isinstance(state, Mapping) or set(state) != set(expected):
        found = sorted(state, key=str) if isinstance(state, Mapping) else type(state).__name__
        msg = (
            f"{owner}: state of another layer? got {found}, expected {sorted(expected)}; "
            "use the state this layer returned, or initial_state()"
        )
        raise SSMError(msg)
    for key, shape in expected.items():
        name, x = f"state[{key!r}]", state[key]
        check_array(owner, name, x)
        check_shape(owner, name, x, str(shape), tuple(x.shape) == shape)
    check_kind(owner, "real", **state)
    named = {f"state_{key}": x for key, x in state.items()}
    check_precision(owner, FLOATS, params=first, **named)

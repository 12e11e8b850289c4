"""Checks on what a module is called with: one clear error before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

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

__all__ = [
    "FLOATS",
    "HALF",
    "Place",
    "check_lengths",
    "check_names",
    "check_precisions",
    "check_state",
    "check_step_sizes",
    "check_tokens",
    "checked_batch_shape",
]

FLOATS = ("float32", "float64")
"""The dtypes of parameters and states."""

HALF = ("float16", "bfloat16")
"""The dtypes that activations and the weights of large products may have instead."""


class Place(NamedTuple):
    """Where new arrays go: beside ``example``, in ``dtype``, that of recurrences and states."""

    example: Array
    dtype: Any

    def zeros(self, shape: tuple[int, ...]) -> Array:
        """Return zeros."""
        xp = arrays.namespace(self.example)
        return xp.zeros(shape, dtype=self.dtype, device=arrays.device(self.example))


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


def check_names(owner: str, given: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise SSMError unless the dotted names of parameters are those ``expected``."""
    if given.keys() != expected.keys():
        missing, extra = sorted(expected.keys() - given), sorted(given.keys() - expected)
        msg = (
            f"{owner}: parameters of another layer? missing {missing}, unexpected {extra}; "
            "expected a dict as from init()"
        )
        raise SSMError(msg)


def check_precisions(owner: str, given: Mapping[str, Array], loose: frozenset[str]) -> None:
    """Raise SSMError unless parameters are real, of one library and one precision.

    Those whose names are ``loose`` may be in half precision instead.
    """
    if not given:
        return
    half = {name for name in loose if backend.dtype_name(given[name]) in HALF}
    wide = {name: x for name, x in given.items() if name not in half}
    check_kind(owner, "real", **wide)
    check_precision(owner, FLOATS, **wide)
    arrays.namespace(*given.values())


def check_lengths(owner: str, lengths: Array | None, u: Array, shape: tuple[int, ...]) -> None:
    """Raise SSMError unless ``lengths`` are integers in 0..L for sequences (..., L) = ``shape``."""
    if lengths is None:
        return
    check_array(owner, "lengths", lengths)
    xp = arrays.namespace(lengths, u)
    if not xp.isdtype(lengths.dtype, "integral"):
        msg = f"{owner}: lengths has dtype {backend.dtype_name(lengths)}; expected integers"
        raise SSMError(msg)
    fits = broadcasts_to(lengths, shape[:-1])
    check_shape(owner, "lengths", lengths, f"(...) = {shape[:-1]}", fits)
    library = backend.of(lengths)
    if library.concrete(lengths) and 0 not in lengths.shape:
        values = library.to_numpy(lengths)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > shape[-1]:
            msg = f"{owner}: lengths go from {low} to {high}; expected 0 to L = {shape[-1]}"
            raise SSMError(msg)


def check_tokens(owner: str, tokens: Array, vocabulary: int) -> None:
    """Raise SSMError where a token that can be looked at is none of the vocabulary."""
    if 0 in tokens.shape or not readable(tokens):
        return
    values = backend.to_numpy(tokens)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= vocabulary:
        msg = f"{owner}: tokens go from {low} to {high}; expected 0 to {vocabulary - 1}"
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
    owner: str, state: State | None, expected: Mapping[str, tuple[int, ...]], place: Place
) -> None:
    """Raise SSMError unless ``state`` has the ``expected`` shapes by dotted name, and ``place``."""
    if state is None:
        return
    given = dict(arrays.leaves(state)) if isinstance(state, Mapping) else None
    if given is None or given.keys() != expected.keys():
        flat = state if not any("." in name for name in expected) else given
        found = type(state).__name__ if given is None else sorted(flat or (), key=str)
        msg = (
            f"{owner}: state of another layer? got {found}, expected {sorted(expected)}; "
            "use the state this layer returned, or initial_state()"
        )
        raise SSMError(msg)
    for key, shape in expected.items():
        name, x = f"state[{key!r}]", given[key]
        check_array(owner, name, x)
        check_shape(owner, name, x, str(shape), tuple(x.shape) == shape)
    check_kind(owner, "real", **given)
    named = {f"state_{key}": x for key, x in given.items()}
    if place.dtype == place.example.dtype:
        named = {"params": place.example, **named}
    check_precision(owner, FLOATS, **named)

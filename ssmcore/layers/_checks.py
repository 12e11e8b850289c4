"""Checks on what a layer is called with: one clear error before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ssmcore import arrays, backend
from ssmcore.errors import SSMError
from ssmcore.primitives._checks import broadcasts_to, check_array, check_shape, readable
from ssmcore.typing import Array

__all__ = ["check_batch_shape", "check_lengths", "check_step_sizes"]

STEP_SIZES = ("log_dt", "dt_proj.bias")


def check_batch_shape(owner: str, batch_shape: tuple[int, ...]) -> None:
    """Raise SSMError unless ``batch_shape`` is a tuple of sizes."""
    sizes = batch_shape if isinstance(batch_shape, tuple) else (None,)
    if not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in sizes):
        msg = (
            f"{owner}: batch_shape is {batch_shape!r:.50}; expected a tuple of whole numbers of "
            "at least 0, such as (2,)"
        )
        raise SSMError(msg)


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
    """Raise SSMError for a step size that is readable and not a finite positive number.

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
                f"within +-{limit:.4g}, so that the step size is positive and finite"
            )
            raise SSMError(msg)

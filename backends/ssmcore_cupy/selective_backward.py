"""The adjoint of ``selective_scan``, for libraries that differentiate: no states of all steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ssmcore_cuda.selective import THREADS, Layout, constants, shares
from ssmcore_cuda.source import Source

from ssmcore import arrays
from ssmcore_cupy.launch import Launch, strided
from ssmcore_cupy.selective import Given, coefficients

__all__ = ["Gradients", "backward", "checkpoints_for"]

WARP = 32
PER_LANE = 4
"""States of one lane, which runs them one after the other."""


class Gradients(NamedTuple):
    """By all that ``Given`` holds, in its shapes; ``D`` (H) also where there is none."""

    u: Any
    delta: Any
    A: Any
    B: Any
    C: Any
    D: Any
    start: Any


def checkpoints_for(given: Given) -> Any:
    """Return an array for ``forward`` to note states in: 1 / steps of all states."""
    xp, (rows, length, channels) = arrays.namespace(given.u), given.u.shape
    shape = (rows, -(-length // _steps(given)), channels, given.A.shape[1])
    return xp.empty(shape, dtype=given.u.dtype, device=arrays.device(given.u))


def backward(
    launch: Launch, given: Given, checkpoints: Any, y_bar: Any, last_bar: Any | None
) -> Gradients:
    """Return the gradients, from those by y (R, L, H) and by the last states (R, H, N).

    ``checkpoints`` are those of ``forward``; at most 128 states. All sums have a fixed order.
    """
    xp, u, device = arrays.namespace(given.u), given.u, arrays.device(given.u)
    (rows, length, channels), states = u.shape, given.A.shape[1]
    lanes = 1
    while -(-states // lanes) > PER_LANE and lanes < WARP:
        lanes *= 2
    chosen = Layout(lanes, *shares(states, lanes, u.itemsize), _steps(given), 1)
    groups = -(-channels * lanes // THREADS)
    by_state, by_step = (rows, channels, states), (rows, groups, length, states)
    shapes = (u.shape, u.shape, by_state, by_step, by_step, (rows, channels), by_state)
    out = Gradients(*(xp.empty(shape, dtype=u.dtype, device=device) for shape in shapes))
    arguments = (
        *coefficients(given),
        *strided(y_bar, 3),
        *strided(last_bar, 3),
        checkpoints,
        *out,
        np.int64(length),
        np.int64(channels),
    )
    compiled_for = constants(chosen, u.dtype, states, resets=given.reset is not None)
    source = Source("selective_scan_backward.cu", compiled_for)
    launch(source, "selective_scan_backward", rows * groups, THREADS, arguments)
    return out._replace(
        A=xp.sum(out.A, axis=0),
        B=xp.sum(out.B, axis=1),
        C=xp.sum(out.C, axis=1),
        D=xp.sum(out.D, axis=0),
    )


def _steps(given: Given) -> int:
    return 1 if given.u.shape[1] == 1 else 32 // given.u.itemsize

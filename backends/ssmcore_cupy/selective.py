"""``selective_scan`` on CuPy: serial in time, all states in registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssmcore import arrays
from ssmcore.primitives.dispatch import REFERENCES
from ssmcore_cupy.launch import Launch, Source, strided
from ssmcore_cupy.rows import as_rows, broadcast_rows, real_name

__all__ = ["Layout", "layout", "selective_scan"]

THREADS = 128
WARP = 32
MOST_STATES = 256
REGISTERS = 64
"""Bytes of states a thread holds at most (and twice as many beside: what rounding took, and A)."""
FILLING = 1 << 16
"""Threads that fill a device."""


def selective_scan(
    launch: Launch,
    u: Any,
    delta: Any,
    A: Any,
    B: Any,
    C: Any,
    D: Any | None,
    *,
    initial: Any | None,
    reset: Any | None,
) -> tuple[Any, Any]:
    """See ssmcore.selective_scan: real, with B and C shared by the channels; else the reference."""
    if 0 in u.shape or not _fits(u, A, B, C):
        given = u, delta, A, B, C, D
        out: tuple[Any, Any] = REFERENCES["selective_scan"](*given, initial=initial, reset=reset)
        return out
    xp = arrays.namespace(u, delta, A, B, C)
    lead, (length, channels) = u.shape[:-2], u.shape[-2:]
    states, device = A.shape[1], arrays.device(u)
    rows = as_rows(u, 2)
    y = xp.empty(rows.shape, dtype=u.dtype, device=device)
    last = xp.empty((rows.shape[0], channels, states), dtype=u.dtype, device=device)
    chosen = layout(rows.shape[0] * channels, length, states, u.itemsize)
    arguments = (
        *strided(rows, 3),
        *strided(as_rows(delta, 2), 3),
        *strided(A, 2),
        *strided(as_rows(B, 2), 3),
        *strided(as_rows(C, 2), 3),
        *strided(D, 1),
        *strided(None if reset is None else broadcast_rows(reset, lead, 1), 2),
        *strided(None if initial is None else as_rows(initial, 2), 3),
        y,
        last,
        np.int64(length),
        np.int64(channels),
    )
    source = _source(chosen, real_name(u), states, reset is not None)
    blocks = rows.shape[0] * -(-channels * chosen.lanes // THREADS)
    launch(source, "selective_scan", blocks, THREADS, arguments)
    return xp.reshape(y, u.shape), xp.reshape(last, (*lead, channels, states))


def _fits(u: Any, A: Any, B: Any, C: Any) -> bool:
    real = not any(arrays.is_complex(x) for x in (A, B, C))
    return real and B.ndim == C.ndim == u.ndim and 0 < A.shape[1] <= MOST_STATES


@dataclass(frozen=True)
class Layout:
    """How a block shares its work: ``lanes`` threads a channel, ``steps`` at a time."""

    lanes: int
    per_lane: int
    vector: int
    steps: int


def layout(sequences: int, length: int, states: int, itemsize: int) -> Layout:
    """Return how to run ``sequences`` (rows times channels) of ``length`` steps.

    Few lanes a channel do the least work; more where one thread cannot hold the states, where
    there are too few threads, and for a single step, which is all reading and writing of states.
    """
    lanes = 1
    while lanes < WARP and (
        -(-states // lanes) * itemsize > REGISTERS
        or (sequences * lanes < FILLING and states > 4 * lanes)
        or (length == 1 and states > lanes)
    ):
        lanes *= 2
    per_lane = -(-states // lanes)
    vector = next(v for v in (16 // itemsize, 2, 1) if per_lane % v == 0)
    return Layout(lanes, per_lane, vector, 1 if length == 1 else 32 // itemsize)


def _source(chosen: Layout, real: str, states: int, restarts: bool) -> Source:
    constants: dict[str, str | int] = {
        "REAL": real,
        "STATES": states,
        "LANES": chosen.lanes,
        "PER_LANE": chosen.per_lane,
        "VECTOR": chosen.vector,
        "STEPS": chosen.steps,
        "THREADS": THREADS,
        "RESETS": int(restarts),
    }
    return Source("selective_scan.cu", tuple(constants.items()))

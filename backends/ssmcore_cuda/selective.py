"""How ``selective_scan.cu`` is laid out on a device: lanes, steps and segments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["MOST_STATES", "THREADS", "Layout", "constants", "cut", "layout", "shares"]

THREADS = 128
WARP = 32
MOST_STATES = 256
REGISTERS = 32
"""Bytes of states a thread holds at most (and twice as many beside: what rounding took, and A)."""
FILLING = 1 << 16
"""Threads that fill a device."""
SHORTEST = 128
"""Steps a segment has at least."""
WORTH = 4
"""Segments from which on cutting the time pays."""


@dataclass(frozen=True)
class Layout:
    """``lanes`` threads a channel, ``steps`` at a time; the whole time in ``segments``."""

    lanes: int
    per_lane: int
    vector: int
    steps: int
    segments: int


def layout(sequences: int, length: int, states: int, itemsize: int) -> Layout:
    """Return how to run ``sequences`` (rows times channels) of ``length`` steps.

    Few lanes a channel do the least work; more where one thread cannot hold the states, where
    there are too few threads, and for a single step, which is all reading and writing of states.
    Where even that leaves a device empty the time is cut, which costs everything but the output
    twice.
    """
    lanes = 1
    while lanes < WARP and (
        -(-states // lanes) * itemsize > REGISTERS
        or (sequences * lanes < FILLING and states > 4 * lanes)
        or (length == 1 and states > lanes)
    ):
        lanes *= 2
    wanted = FILLING // (sequences * lanes)
    segments = min(wanted, length // SHORTEST) if wanted >= WORTH else 1
    steps = 1 if length == 1 else 32 // itemsize
    return Layout(lanes, *shares(states, lanes, itemsize), steps, max(1, segments))


def shares(states: int, lanes: int, itemsize: int) -> tuple[int, int]:
    """Return how many states a lane has, and how many of them are neighbours."""
    per_lane = -(-states // lanes)
    return per_lane, next(v for v in (16 // itemsize, 2, 1) if per_lane % v == 0)


def cut(chosen: Layout, length: int) -> tuple[int, int]:
    """Return the number of segments and how many steps they have, whole multiples of ``steps``."""
    segment = -(-length // (chosen.segments * chosen.steps)) * chosen.steps
    return -(-length // segment), segment


def constants(
    chosen: Layout, dtype: Any, states: int, *, resets: bool
) -> tuple[tuple[str, str | int], ...]:
    """Return what both kernels, forward and backward, are compiled for."""
    return (
        ("REAL", "float" if np.dtype(dtype).itemsize == 4 else "double"),
        ("STATES", states),
        ("LANES", chosen.lanes),
        ("PER_LANE", chosen.per_lane),
        ("VECTOR", chosen.vector),
        ("STEPS", chosen.steps),
        ("THREADS", THREADS),
        ("RESETS", int(resets)),
    )

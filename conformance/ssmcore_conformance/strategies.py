"""What the tests draw: lengths, batch shapes, numbers, resets, cuts of a sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

__all__ = ["BATCHES", "LENGTHS", "RESETS", "cuts", "numbers", "resets", "transition"]

Numbers = np.ndarray[Any, Any]
LENGTHS = (0, 1, 2, 3, 5, 7, 13, 31, 32, 33, 63, 64, 65, 127)
BATCHES: tuple[tuple[int, ...], ...] = ((), (1,), (2, 3), (0,))
RESETS = ("none", "all", "random")


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Numbers:
    """Return standard normal numbers, complex ones with unit variance too."""
    if np.dtype(dtype).kind == "c":
        pair = rng.standard_normal((*shape, 2)) * np.sqrt(0.5)
        return np.asarray(pair[..., 0] + 1j * pair[..., 1]).astype(dtype)
    return rng.standard_normal(shape).astype(dtype)


def transition(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Numbers:
    """Return transitions of modulus 0 to 1, any phase or sign: a stable recurrence."""
    modulus: Numbers = np.asarray(rng.uniform(0.0, 1.0, shape))
    if np.dtype(dtype).kind == "c":
        phase = rng.uniform(-np.pi, np.pi, shape)
        return np.asarray(modulus * np.exp(1j * phase), dtype=dtype)
    return np.asarray(modulus * rng.choice([-1.0, 1.0], shape), dtype=dtype)


def resets(rng: np.random.Generator, kind: str, shape: tuple[int, ...]) -> Numbers | None:
    """Return no reset at all, one before every step, or one before about every fourth."""
    if kind == "none":
        return None
    return np.ones(shape, bool) if kind == "all" else rng.uniform(size=shape) < 1 / 4


@st.composite
def cuts(draw: st.DrawFn, length: int, most: int = 5) -> list[int]:
    """Draw where to cut a sequence: sorted, repeated cuts make empty chunks."""
    inner = draw(st.lists(st.integers(0, length), min_size=1, max_size=most))
    return [0, *sorted(inner), length]

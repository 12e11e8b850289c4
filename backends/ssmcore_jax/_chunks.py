"""Loops over chunks of a sequence whose derivative keeps the state before each chunk only.

A chunk is run again when it is differentiated (``jax.checkpoint``), so that what it computes for
all its steps at once, in arrays that stay in the cache, is never held for the whole sequence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["chunk_length", "in_chunks"]

Inputs = dict[str, Any]
"""What changes with time: arrays (R, L, ...), all of one R and L; of one row's chunk (T, ...)."""
Chunk = Callable[[Any, Inputs], tuple[Any, Any]]
"""(state, inputs of a chunk) -> (state after it, outputs (T, ...))."""


def chunk_length(L: int, width: int, numbers: int, shortest: int) -> int:
    """Return how many steps of ``width`` numbers make ``numbers``: a power of two, at most L."""
    T = 1 << max(shortest, numbers // max(1, width)).bit_length() - 1
    return max(1, min(L, T))


def in_chunks(
    chunk: Chunk, start: Any, inputs: Inputs, T: int, *, reverse: bool = False
) -> tuple[Any, Any]:
    """Return all outputs (R, L, ...) and the last states: ``chunk`` over chunks of T steps.

    ``start`` (R, ...) are the states that the rows start from. The chunks of one row follow each
    other, then come those of the next: they are read and written where they lie.
    """
    L = next(iter(inputs.values())).shape[1]
    cut = L // T * T
    whole = {name: x[:, :cut] for name, x in inputs.items()}
    if cut == L:
        return _whole(chunk, start, whole, T, reverse=reverse)
    rest = {name: x[:, cut:] for name, x in inputs.items()}
    if reverse:
        late, h = _whole(chunk, start, rest, L - cut, reverse=True)
        early, h = _whole(chunk, h, whole, T, reverse=True)
    else:
        early, h = _whole(chunk, start, whole, T, reverse=False)
        late, h = _whole(chunk, h, rest, L - cut, reverse=False)
    return jnp.concatenate((early, late), axis=1), h


def _whole(chunk: Chunk, start: Any, inputs: Inputs, T: int, *, reverse: bool) -> tuple[Any, Any]:
    """Return what ``in_chunks`` does for a length that is a multiple of T."""
    R, L = next(iter(inputs.values())).shape[:2]
    count = L // T

    def body(carry: tuple[Any, Any], now: tuple[Any, Inputs]) -> tuple[tuple[Any, Any], Any]:
        h, last = carry
        k, x = now
        row, first = k // count, k % count == (count - 1 if reverse else 0)
        h = jnp.where(first, lax.dynamic_index_in_dim(start, row, 0, keepdims=False), h)
        h, y = chunk(h, x)
        return (h, lax.dynamic_update_index_in_dim(last, h, row, 0)), y

    def cut(x: Any) -> Any:
        return jnp.reshape(x, (R * count, T, *x.shape[2:]))

    xs = (jnp.arange(R * count), jax.tree.map(cut, inputs))
    carry = (jnp.zeros_like(start[0]), jnp.zeros_like(start))
    again = jax.checkpoint(body, prevent_cse=False)
    (_, last), y = lax.scan(again, carry, xs, reverse=reverse)
    return jnp.reshape(y, (R, L, *y.shape[2:])), last

"""Loops over chunks of a sequence whose derivative keeps the state before each chunk only.

A chunk is run again when it is differentiated (``jax.checkpoint``), so that what it computes for
all its steps at once, in arrays that stay in the cache, is never held for the whole sequence.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ["Chunk", "Inputs", "in_chunks", "rows"]

Inputs = dict[str, Any]
"""What changes with time: arrays (R, L, ...), all of one R and L; (T, ...) of a row's chunk."""
Chunk = Callable[[Any, Inputs], tuple[Any, Any]]
"""(state of a row, inputs of a chunk) -> (state after it, outputs (T, ...))."""
ENOUGH = {"cpu": 1 << 8}
"""Numbers that one step should touch, by platform: rows with fewer are taken together."""
ELSEWHERE = 1 << 20


def rows(x: Any, leading: int) -> Any:
    """Return ``x`` with its first ``leading`` axes as one."""
    return jnp.reshape(x, (math.prod(x.shape[:leading]), *x.shape[leading:]))


def _group(R: Any, width: int) -> Any:
    """Return how many of R rows with ``width`` numbers go together: a divisor of R.

    Of a number that ``jax.export`` leaves open: one, or all.
    """
    platform = jax.default_backend()
    if not isinstance(R, int):
        return 1 if platform in ENOUGH else R
    most = max(1, ENOUGH.get(platform, ELSEWHERE) // max(1, width))
    return max(G for G in range(1, min(R, most) + 1) if R % G == 0)


def in_chunks(
    chunk: Chunk,
    start: Any,
    inputs: Inputs,
    *,
    numbers: int,
    shortest: int,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Return all outputs (R, L, ...) and the last states, chunk by chunk.

    ``start`` (R, ...) are the states that the rows start from. A chunk is a power of two of steps,
    at least ``shortest``, so many that its states are about ``numbers`` numbers. What is left open
    by ``jax.export`` counts as 1; a length that it leaves open is one chunk.
    """
    R, L = next(iter(inputs.values())).shape[:2]
    if L == 1:  # no loop: all rows at once
        h, y = jax.vmap(chunk)(start, inputs)
        return y, h
    width = math.prod(start.shape[1:])
    G = _group(R, width)
    if not isinstance(L, int):
        return _whole(chunk, start, inputs, G, L, reverse=reverse)
    known = width * (G if isinstance(G, int) else 1)
    T = min(L, 1 << max(shortest, numbers // max(1, known)).bit_length() - 1)

    def part(where: slice, T: int, start: Any) -> tuple[Any, Any]:
        given = {name: x[:, where] for name, x in inputs.items()}
        return _whole(chunk, start, given, G, T, reverse=reverse)

    cut = L // T * T
    if cut == L:
        return _whole(chunk, start, inputs, G, T, reverse=reverse)
    order = [(slice(None, cut), T), (slice(cut, None), L - cut)]
    first, h = part(*order[1 if reverse else 0], start)
    second, h = part(*order[0 if reverse else 1], h)
    return jnp.concatenate((second, first) if reverse else (first, second), axis=1), h


def _whole(
    chunk: Chunk, start: Any, inputs: Inputs, G: Any, T: Any, *, reverse: bool
) -> tuple[Any, Any]:
    """Return the same for a length that is a multiple of T.

    The chunks of G rows follow each other, then come those of the next. A single row is read and
    written where it lies; several are moved, and ``chunk`` is mapped over them.
    """
    R, L = next(iter(inputs.values())).shape[:2]
    count = L // T
    every = chunk if G == 1 else jax.vmap(chunk)

    def cut(x: Any) -> Any:
        if G == 1:
            return jnp.reshape(x, (R * count, T, *x.shape[2:]))
        return rows(jnp.moveaxis(jnp.reshape(x, (R // G, G, count, T, *x.shape[2:])), 2, 1), 2)

    def body(carry: tuple[Any, Any], now: tuple[Any, Inputs]) -> tuple[tuple[Any, Any], Any]:
        h, last = carry
        k, x = now
        group, first = k // count, k % count == (count - 1 if reverse else 0)
        h = jnp.where(first, lax.dynamic_index_in_dim(grouped, group, 0, keepdims=False), h)
        h, y = every(h, x)
        return (h, lax.dynamic_update_index_in_dim(last, h, group, 0)), y

    grouped = start if G == 1 else jnp.reshape(start, (R // G, G, *start.shape[1:]))
    xs = (jnp.arange(R // G * count), jax.tree.map(cut, inputs))
    carry = (jnp.zeros_like(grouped[0]), jnp.zeros_like(grouped))
    again = jax.checkpoint(body, prevent_cse=False)
    (_, last), y = lax.scan(again, carry, xs, reverse=reverse)
    if G != 1:
        y = jnp.moveaxis(jnp.reshape(y, (R // G, count, *y.shape[1:])), 1, 2)
    tail = y.shape[2:] if G == 1 else y.shape[4:]
    return jnp.reshape(y, (R, L, *tail)), jnp.reshape(last, start.shape)

"""``diagonal_scan`` on JAX: chunk by chunk, so that the states of all steps are never held.

A chunk is three products: the drive B u of all its steps by one product of real matrices, complex
numbers as pairs of blocks (re, im), the states by ``linear_scan``, the outputs by another product.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jax import lax

from ssmcore_jax._channels import BLOCK, channels
from ssmcore_jax._chunks import Chunk, Inputs, in_chunks, rows
from ssmcore_jax._scan import scan_with_last
from ssmcore_jax._varying import varying_alike

__all__ = ["diagonal_scan"]

NUMBERS = 1 << 15
"""Numbers that the states of a chunk have, about: they stay in the cache."""
SHORTEST = 32
"""Steps a chunk has at least: as many times less memory do the states before the chunks take."""
_matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


def diagonal_scan(
    a: Any,
    B: Any,
    C: Any,
    u: Any,
    initial: Any | None,
    *,
    D: Any | None = None,
    reset: Any | None,
    reverse: bool,
) -> tuple[Any, Any]:
    """See ssmcore.diagonal_scan."""
    lead, leading = u.shape[:-2], u.ndim - 2
    h = jnp.zeros((*lead, *a.shape), a.dtype) if initial is None else initial
    if 0 in u.shape or a.size == 0:
        return (jnp.zeros_like(u) if D is None else D * u), h
    inputs = {"u": rows(u, leading)}
    if reset is not None:
        inputs["reset"] = rows(jnp.broadcast_to(reset, u.shape[:-1]), leading)
    a, B, C, D, h, inputs = varying_alike((a, B, C, D, h, inputs))
    steps = _fed((_mixing if a.ndim == 1 else _separate)(a, B, C, reverse), D)
    blocks = a.ndim == 2 and reset is None
    y, h = in_chunks(
        channels(a, B, C, D, steps, reverse) if blocks else steps,
        rows(h, leading),
        inputs,
        numbers=NUMBERS,
        shortest=BLOCK if blocks else SHORTEST,
        reverse=reverse,
    )
    return jnp.reshape(y, u.shape), jnp.reshape(h, (*lead, *a.shape))


def _fed(steps: Chunk, D: Any | None) -> Chunk:
    """Return ``steps`` with D u added to the outputs."""
    if D is None:
        return steps

    def chunk(h: Any, now: Inputs) -> tuple[Any, Any]:
        h, y = steps(h, now)
        return h, y + D * now["u"]

    return chunk


def _mixing(a: Any, B: Any, C: Any, reverse: bool) -> Chunk:
    """One system: B (P, H), C (H, P)."""
    P, two = a.shape[0], jnp.iscomplexobj(a)
    into = jnp.concatenate((B.real, B.imag)).T if two else B.T
    out = jnp.concatenate((C.real, -C.imag), axis=1).T if two else C.T

    def chunk(h: Any, now: Inputs) -> tuple[Any, Any]:
        b = _matmul(now["u"], into)
        b = lax.complex(b[..., :P], b[..., P:]) if two else b
        x, last = scan_with_last(a, b, h, reset=now.get("reset"), reverse=reverse)
        return last, _matmul(jnp.concatenate((x.real, x.imag), axis=-1) if two else x, out)

    return chunk


def _separate(a: Any, B: Any, C: Any, reverse: bool) -> Chunk:
    """A system for each channel: a, B, C (H, N); step by step."""
    flat = jnp.reshape(a, (a.size,))

    def chunk(h: Any, now: Inputs) -> tuple[Any, Any]:
        u = now["u"]
        b = jnp.reshape(u[..., None] * B, (*u.shape[:-1], a.size))
        x, last = scan_with_last(
            flat, b, jnp.reshape(h, (a.size,)), reset=now.get("reset"), reverse=reverse
        )
        x = jnp.reshape(x, (*u.shape, a.shape[1]))
        return jnp.reshape(last, h.shape), jnp.sum(C * x, axis=-1).real

    return chunk

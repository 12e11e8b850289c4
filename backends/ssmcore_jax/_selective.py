"""``selective_scan`` on JAX: chunk by chunk, so that the states of all steps are never held.

Within a chunk the transitions, the drive, the states and the outputs of all steps are computed
one after the other, each at once: a chunk is so short that they stay in the cache, and so long
that all cores take part.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from ssmcore_jax._chunks import Inputs, chunk_length, in_chunks
from ssmcore_jax._scan import scan_with_last

__all__ = ["selective_scan"]

NUMBERS = 1 << 17
"""Numbers that one array of a chunk has, about: XLA shares the work from there on."""
SHORTEST = 16
"""Steps a chunk has at least: as many times less memory do the states before the chunks take."""


def selective_scan(
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
    """See ssmcore.selective_scan."""
    dtype = jnp.result_type(A, B)
    h = jnp.zeros((*u.shape[:-2], *A.shape), dtype) if initial is None else initial.astype(dtype)
    if 0 in u.shape:
        return jnp.zeros_like(u), h
    rows, L = u.shape[:-2], u.shape[-2]
    inputs = {"u": u, "delta": delta}
    for name, x in (("B", B), ("C", C)):
        own = x.ndim == u.ndim + 1
        inputs[name] = jnp.broadcast_to(x, (*rows, L, *x.shape[-2:])) if own else x
    if reset is not None:
        inputs["reset"] = jnp.broadcast_to(reset, (*rows, L))
    flat = {name: _rows(x, len(rows)) for name, x in inputs.items()}
    T = chunk_length(L, A.size, NUMBERS, SHORTEST)
    y, h = in_chunks(lambda h, now: _chunk(A, h, now), _rows(h, len(rows)), flat, T)
    y, h = jnp.reshape(y, u.shape), jnp.reshape(h, (*rows, *A.shape))
    return (y if D is None else y + D * u), h


def _rows(x: Any, leading: int) -> Any:
    return jnp.reshape(x, (math.prod(x.shape[:leading]), *x.shape[leading:]))


def _chunk(A: Any, h: Any, now: Inputs) -> tuple[Any, Any]:
    """Return the state (H, N) after a chunk and the outputs C_t h_t (T, H) from state ``h``."""
    u, delta, B, C = (now[name] for name in ("u", "delta", "B", "C"))
    flat = (u.shape[0], A.size)
    a = jnp.exp(delta[..., None] * A)
    B = B if B.ndim == 3 else B[:, None, :]
    b = jnp.broadcast_to((delta * u)[..., None] * B, a.shape).astype(h.dtype)
    start, reset = jnp.reshape(h, (A.size,)), now.get("reset")
    states, last = scan_with_last(
        jnp.reshape(a, flat), jnp.reshape(b, flat), start, reset=reset, reverse=False
    )
    states = jnp.reshape(states, a.shape)
    y = jnp.einsum("thn,thn->th" if C.ndim == 3 else "thn,tn->th", states, C)
    last = jnp.reshape(last, A.shape)
    return last, 2.0 * jnp.real(y) if jnp.iscomplexobj(A) else y

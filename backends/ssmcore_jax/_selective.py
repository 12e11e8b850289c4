"""``selective_scan`` on JAX: a loop over time that never holds the states of all steps.

The sequence is cut into chunks. The derivative keeps the state before each chunk and runs the
chunk again, so that it holds the states of one chunk at a time; JAX derives it, by
``jax.checkpoint`` around the inner loop.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ssmcore import arrays
from ssmcore_jax._varying import varying_alike

__all__ = ["selective_scan"]

Now = dict[str, Any]
"""What changes with time, one step of it or several on the first axis."""


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
    state = (*u.shape[:-2], *A.shape)
    h = jnp.zeros(state, dtype) if initial is None else initial.astype(dtype)
    if 0 in u.shape:
        return jnp.zeros_like(u), h
    inputs = {"u": _time_first(u, -2), "delta": _time_first(delta, -2)}
    for name, x in (("B", B), ("C", C)):
        own = x.ndim == u.ndim + 1
        x = x if own else x[..., None, :]
        inputs[name] = _time_first(jnp.broadcast_to(x, _with_length(x, u.shape[-2])), -3)
    if reset is not None:
        inputs["keep"] = _time_first(~reset, -1)[..., None, None]
    A, h, inputs = varying_alike((A, h, inputs))
    y, h = _chunked(A, arrays.widen(h), inputs)
    y = jnp.moveaxis(y, 0, -2)
    return (y if D is None else y + D * u), h.astype(dtype)


def _with_length(x: Any, length: int) -> tuple[int, ...]:
    return (*x.shape[:-3], length, *x.shape[-2:])


def _time_first(x: Any, axis: int) -> Any:
    return jnp.moveaxis(x, axis, 0)


def _steps(A: Any, h: Any, inputs: Now) -> tuple[Any, Any]:
    """Return the last state and the outputs C_t h_t (T, ..., H) from state ``h``."""
    two = 2.0 if jnp.iscomplexobj(A) else 1.0
    dtype = inputs["u"].dtype

    def step(h: Any, now: Now) -> tuple[Any, Any]:
        delta = now["delta"][..., None]
        moved = jnp.exp(delta * A) * h
        if "keep" in now:
            moved = jnp.where(now["keep"], moved, jnp.zeros_like(moved))
        h = moved + (delta * now["u"][..., None]) * now["B"]
        return h, (two * jnp.sum(now["C"] * h, axis=-1).real).astype(dtype)

    return lax.scan(step, h, inputs)


def _chunked(A: Any, h: Any, inputs: Now) -> tuple[Any, Any]:
    """Return all outputs and the last state; about sqrt(L) chunks of about sqrt(L) steps."""
    L = inputs["u"].shape[0]
    T = max(1, math.isqrt(L))
    count = L // T
    chunk = jax.checkpoint(lambda h, now: _steps(A, h, now), prevent_cse=False)

    def cut(x: Any) -> Any:
        return jnp.reshape(x[: count * T], (count, T, *x.shape[1:]))

    h, y = lax.scan(chunk, h, jax.tree.map(cut, inputs))
    y = jnp.reshape(y, (count * T, *y.shape[2:]))
    if count * T < L:
        h, rest = chunk(h, {name: x[count * T :] for name, x in inputs.items()})
        y = jnp.concatenate((y, rest), axis=0)
    return y, h

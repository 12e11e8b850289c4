"""``selective_scan`` on JAX: chunk by chunk, so that the states of all steps are never held.

Within a chunk the transitions, the drive, the states and the outputs of all steps are computed
one after the other, each at once: a chunk is so short that they stay in the cache, and so long
that all cores take part.
"""

from __future__ import annotations

import functools
from typing import Any

import jax.numpy as jnp
from jax import lax
from ssmcore_cuda.selective import MOST_STATES

from ssmcore import arrays
from ssmcore.backend import DTYPES
from ssmcore.primitives.canonical import fused, selective_scan_form
from ssmcore_jax import _cuda
from ssmcore_jax._chunks import Inputs, in_chunks, rows
from ssmcore_jax._cuda_selective import primitive
from ssmcore_jax._scan import scan_with_last
from ssmcore_jax._varying import varies, varying_alike

__all__ = ["selective_scan"]

NUMBERS = 1 << 17
"""Numbers that one array of a chunk has, about: XLA shares the work from there on."""
SHORTEST = 16
"""Steps a chunk has at least: as many times less memory do the states before the chunks take."""
_product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)


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
    given = (u, delta, A, B, C, initial, reset)
    if not _cuda.finding().used or not _takes(u, A, B, C) or varies(given):
        return _in_chunks(u, delta, A, B, C, D, initial=initial, reset=reset)
    *form, keep = selective_scan_form(*given)
    y, h = _fused_p.bind(*form, *(() if keep is None else (~keep,)))
    y, h = jnp.reshape(y, u.shape), jnp.reshape(h, (*u.shape[:-2], *A.shape))
    return (y if D is None else y + D * u), h


def _takes(u: Any, A: Any, B: Any, C: Any) -> bool:
    """Whether the kernel in CUDA C takes these."""
    return fused(u, A, B, C) and str(u.dtype) in DTYPES and 0 < A.shape[1] <= MOST_STATES


def _in_chunks(
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
    dtype = jnp.result_type(A, B)
    h = jnp.zeros((*u.shape[:-2], *A.shape), dtype) if initial is None else initial.astype(dtype)
    if 0 in u.shape:
        return jnp.zeros_like(u), h
    lead, leading = u.shape[:-2], u.ndim - 2
    inputs = {"u": u, "delta": delta}
    for name, x in (("B", B), ("C", C)):
        own = x.ndim == u.ndim + 1
        inputs[name] = jnp.broadcast_to(x, (*u.shape[:-1], *x.shape[-2:])) if own else x
    if reset is not None:
        inputs["reset"] = jnp.broadcast_to(reset, u.shape[:-1])
    A, D, h, inputs = varying_alike((A, D, h, inputs))
    y, h = in_chunks(
        lambda h, now: _chunk(A, D, h, now),
        rows(arrays.widen(h), leading),
        {name: rows(x, leading) for name, x in inputs.items()},
        numbers=NUMBERS,
        shortest=SHORTEST,
    )
    y, h = jnp.reshape(y, u.shape), jnp.reshape(h, (*lead, *A.shape))
    return y, h.astype(dtype)


def _chunk(A: Any, D: Any | None, h: Any, now: Inputs) -> tuple[Any, Any]:
    """Return the state (H, N) of a row after a chunk and its outputs C_t h_t + D u_t (T, H).

    D u_t is added here, where it costs no array of the length of the sequence. Products are written
    as sums of products, whose derivatives hold no factor as large as they are. States move by
    exp(delta_t A) in the widest float.
    """
    u, delta, B, C = (now[name] for name in ("u", "delta", "B", "C"))
    flat = (u.shape[0], A.size)
    a = jnp.exp(_product("th,hn->thn", arrays.widen(delta), arrays.widen(A)))
    b = _product("th,thn->thn" if B.ndim == 3 else "th,tn->thn", delta * u, B).astype(h.dtype)
    x, last = scan_with_last(
        jnp.reshape(a, flat),
        jnp.reshape(b, flat),
        jnp.reshape(h, (A.size,)),
        reset=now.get("reset"),
        reverse=False,
    )
    y = _product("thn,thn->th" if C.ndim == 3 else "thn,tn->th", jnp.reshape(x, a.shape), C)
    y = 2.0 * jnp.real(y) if jnp.iscomplexobj(A) else y
    y = y.astype(u.dtype)
    return jnp.reshape(last, h.shape), y if D is None else y + D * u


def _portable(
    u: Any, delta: Any, A: Any, B: Any, C: Any, start: Any, *reset: Any
) -> tuple[Any, Any]:
    """The scan by rows, as ``_cuda_selective.scan`` has it."""
    mask = reset[0] if reset else None
    return _in_chunks(u, delta, A, B, C, None, initial=start, reset=mask)


_fused_p = primitive(_portable)

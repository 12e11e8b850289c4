"""``linear_scan`` on JAX: one primitive with rules for jit, jvp, vjp and vmap.

h_t = a_t h_{t-1} + b_t runs as a compiled loop over time. The sequence is cut into chunks that
advance together, so that one step of the loop touches enough numbers to be worth its start: the
last states of the chunks come first, then the states they start from, then all states. Nothing is
moved or padded but where the length is no multiple of the chunk.

The scan is linear in (b, h_{-1}): its derivative is a scan of db_t + da_t h_{t-1}, and the
transpose of that the same scan the other way round.
"""

from __future__ import annotations

import contextlib
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ssmcore import arrays, powers
from ssmcore_jax._varying import varying_alike

__all__ = ["linear_scan"]

WIDTHS = {"cpu": 1 << 14, None: 1 << 17}
"""Numbers that one step of the loop should touch at least, by platform; None is any other one."""
SHORTEST = 32
"""Steps a chunk has at least."""


def linear_scan(a: Any, b: Any, initial: Any | None, *, reset: Any | None, reverse: bool) -> Any:
    """See ssmcore.linear_scan."""
    if 0 in b.shape:
        return b
    a = _led(a if a.ndim > 1 else a[None, :], b.ndim)
    start = jnp.zeros_like(b[..., :1, :]) if initial is None else initial[..., None, :]
    keep = () if reset is None else (~_led(reset[..., None], b.ndim),)
    given = varying_alike((a, b, start.astype(b.dtype), *keep))
    return _scan_p.bind(*given, reverse=reverse)


def _led(x: Any, ndim: int) -> Any:
    return jnp.reshape(x, (*[1] * (ndim - x.ndim), *x.shape))


def _at(x: Any, t: Any) -> Any:
    """Return x_t with its time axis, x itself where it does not change with time."""
    return x if x.shape[-2] == 1 else lax.dynamic_slice_in_dim(x, t, 1, -2)


def _carried(a: Any, h: Any, keep: tuple[Any, ...]) -> Any:
    """Return a h, zero where the state restarts: selected, so that nothing crosses a restart."""
    moved = a * h
    return jnp.where(keep[0], moved, jnp.zeros_like(moved)) if keep else moved


def _loop(a: Any, b: Any, start: Any, *keep: Any, reverse: bool) -> Any:
    """Return all states, one step after the other: a, b, keep (..., T, P), start (..., 1, P)."""
    T = b.shape[-2]

    def step(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        h, out = carry
        t = T - 1 - i if reverse else i
        h = _carried(_at(a, t), h, tuple(_at(k, t) for k in keep)) + _at(b, t)
        return h, lax.dynamic_update_slice_in_dim(out, h.astype(b.dtype), t, -2)

    return lax.fori_loop(0, T, step, (arrays.widen(start), jnp.zeros_like(b)))[1]


def _last(a: Any, b: Any, *keep: Any, reverse: bool) -> tuple[Any, Any, tuple[Any, ...]]:
    """Return (p, h, kept): the last state from start x is p x + h, h alone where not ``kept``."""
    T = b.shape[-2]
    constant = a.shape[-2] == 1
    p = arrays.widen(jnp.ones_like(a[..., :1, :]))

    def step(i: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        p, h = carry
        t = T - 1 - i if reverse else i
        h = _carried(_at(a, t), h, tuple(_at(k, t) for k in keep)) + _at(b, t)
        return (p if constant else p * _at(a, t)), h

    h = arrays.widen(jnp.zeros_like(b[..., :1, :]))
    p, h = lax.fori_loop(0, T, step, (p, h))
    if constant:
        p = powers.squares(arrays.widen(a), T.bit_length())[T.bit_length() - 1]
    return p, h, tuple(jnp.all(k, axis=-2, keepdims=True) for k in keep)


def _chunks(x: Any, count: int) -> Any:
    """Return (..., L, P) as (..., count, L / count, P); what has one step as (..., 1, 1, P)."""
    if x.shape[-2] == 1:
        return x[..., None, :, :]
    return jnp.reshape(x, (*x.shape[:-2], count, x.shape[-2] // count, x.shape[-1]))


def _starts(p: Any, h: Any, start: Any, *keep: Any, reverse: bool) -> Any:
    """Return the state before each chunk, (..., count, 1, P), from what the chunks do to one."""
    flat = [x[..., 0, :] for x in (p, h, *keep)]
    after = _loop(flat[0], flat[1], start, *flat[2:], reverse=reverse)
    edge = (after[..., 1:, :], start) if reverse else (start, after[..., :-1, :])
    return jnp.concatenate(edge, axis=-2)[..., None, :]


def _chunk_length(shape: tuple[Any, ...], width: int) -> Any:
    """Return how many steps a chunk has, a power of two; the whole length if one is enough.

    What ``jax.export`` leaves open counts as 1; a length that it leaves open is one chunk.
    """
    L = shape[-2]
    if not isinstance(L, int):
        return L
    known = math.prod(n for n in shape if isinstance(n, int))
    steps = known // width  # of L, if each touches ``width`` numbers
    length = max(SHORTEST, 1 << max(1, steps).bit_length() - 1)
    return length if 2 * length <= L else L


def _float64() -> Any:
    """Return the context in which JAX has float64 even where it hides it, if it has one.

    Before ``jax.enable_x64`` it ended before loops were lowered, which then mixed up their indices.
    """
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else contextlib.nullcontext()


def _lowered(a: Any, b: Any, start: Any, *keep: Any, reverse: bool, width: int) -> Any:
    """Return all states, carried in the widest float there is and rounded once each."""
    with _float64():
        return _scan(a, b, start, *keep, reverse=reverse, width=width)


def _scan(a: Any, b: Any, start: Any, *keep: Any, reverse: bool, width: int) -> Any:
    """Return all states."""
    L = b.shape[-2]
    T = _chunk_length(b.shape, width)
    count = L // T
    if count < 2:
        return _loop(a, b, start, *keep, reverse=reverse)
    if count * T < L:
        return _in_two(a, b, start, *keep, reverse=reverse, width=width, cut=count * T)
    cut = [_chunks(x, count) for x in (a, b, *keep)]
    p, h, kept = _last(*cut, reverse=reverse)
    begin = _starts(p, h, start, *kept, reverse=reverse)
    return jnp.reshape(_loop(cut[0], cut[1], begin, *cut[2:], reverse=reverse), b.shape)


def _in_two(a: Any, b: Any, start: Any, *keep: Any, reverse: bool, width: int, cut: int) -> Any:
    """Return all states of the whole chunks and of the rest, one part after the other."""

    def part(where: slice, start: Any) -> Any:
        given = [x if x.shape[-2] == 1 else x[..., where, :] for x in (a, b, *keep)]
        return _scan(given[0], given[1], start, *given[2:], reverse=reverse, width=width)

    whole, rest = slice(None, cut), slice(cut, None)
    if reverse:
        late = part(rest, start)
        early = part(whole, late[..., :1, :])
    else:
        early = part(whole, start)
        late = part(rest, early[..., -1:, :])
    return jnp.concatenate((early, late), axis=-2)


_scan_p: Any = Primitive("ssmcore_linear_scan")


@functools.partial(jax.jit, static_argnames="reverse")
def _apply(a: Any, b: Any, start: Any, *keep: Any, reverse: bool) -> Any:
    return _scan_p.bind(a, b, start, *keep, reverse=reverse)


def _shape(a: Any, b: Any, start: Any, *keep: Any, reverse: bool) -> Any:
    return b.update(weak_type=False)  # like b also in how it is spread over devices


def _before(h: Any, start: Any, reverse: bool) -> Any:
    """Return h_{t-1}, the state that step t starts from."""
    edge = (h[..., 1:, :], start) if reverse else (start, h[..., :-1, :])
    return jnp.concatenate(edge, axis=-2)


def _jvp(primals: Any, tangents: Any, *, reverse: bool) -> tuple[Any, Any]:
    a, _, start, *keep = primals
    da, db, dstart = (
        jnp.zeros_like(x) if type(dx) is ad.Zero else dx
        for x, dx in zip(primals[:3], tangents[:3], strict=True)
    )
    h = _scan_p.bind(*primals, reverse=reverse)
    if type(tangents[0]) is not ad.Zero:
        db = db + _carried(da, _before(h, start, reverse), tuple(keep))
    return h, _scan_p.bind(a, db, dstart, *keep, reverse=reverse)


def _transpose(ct: Any, a: Any, b: Any, start: Any, *keep: Any, reverse: bool) -> list[Any]:
    """G_t = ct_t + a_{t+1} G_{t+1}; the cotangent of b_t is G_t, that of the start a_0 G_0."""
    nothing = [None] * (3 + len(keep))
    if type(ct) is ad.Zero:
        return nothing

    def later(x: Any, fill: Any) -> Any:
        """Return x_{t+1}: the step after t, on the way that the state went."""
        if x.shape[-2] == 1:
            return x
        end = jnp.full_like(x[..., :1, :], fill)
        return jnp.concatenate((end, x[..., :-1, :]) if reverse else (x[..., 1:, :], end), axis=-2)

    zero = jnp.zeros_like(ct[..., :1, :])
    G = _scan_p.bind(later(a, 0), ct, zero, *(later(k, True) for k in keep), reverse=not reverse)
    first = slice(-1, None) if reverse else slice(None, 1)
    dstart = _carried(a[..., first, :], G[..., first, :], tuple(k[..., first, :] for k in keep))
    return [
        None,
        G if isinstance(b, ad.UndefinedPrimal) else None,
        dstart if isinstance(start, ad.UndefinedPrimal) else None,
        *nothing[3:],
    ]


def _batch(given: Any, axes: Any, *, reverse: bool) -> tuple[Any, int]:
    """One axis more in front; b and the start, which give the shape, have it in full."""
    count = next(x.shape[k] for x, k in zip(given, axes, strict=True) if k is not None)

    def moved(i: int) -> Any:
        x, k = given[i], axes[i]
        x = x[None] if k is None else jnp.moveaxis(x, k, 0)
        return jnp.broadcast_to(x, (count, *x.shape[1:])) if i in (1, 2) else x

    return _scan_p.bind(*map(moved, range(len(given))), reverse=reverse), 0


_scan_p.def_impl(_apply)
_scan_p.def_abstract_eval(_shape)
ad.primitive_jvps[_scan_p] = _jvp
ad.primitive_transposes[_scan_p] = _transpose
batching.primitive_batchers[_scan_p] = _batch
for _platform, _width in WIDTHS.items():
    _rule = mlir.lower_fun(functools.partial(_lowered, width=_width), multiple_results=False)
    mlir.register_lowering(_scan_p, _rule, platform=_platform)

"""``linear_scan`` on JAX: one primitive with rules for jit, jvp, vjp and vmap.

h_t = a_t h_{t-1} + b_t runs as a compiled loop over time. Where one step touches too few numbers
to be worth its start, the sequence is cut into chunks that advance together: the last states of
the chunks come first, then the states they start from, then all states. Nothing is moved or
padded but where the length is no multiple of the chunk.

The scan is linear in (b, h_{-1}): its derivative is a scan of db_t + da_t h_{t-1}. Its transpose
runs the other way round, G_t = g_t + a_{t+1} G_{t+1}, and multiplies after a step instead of
before it. The primitive does both, so that it is closed under transposition:

    before: h_t = a_t x_t + b_t, x_{t+1} = h_t        after: h_t = x_t + b_t, x_{t+1} = a_t h_t

from x_0 to the last x, which it returns beside h.
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
from ssmcore_jax import _cuda
from ssmcore_jax._varying import varying_alike

__all__ = ["linear_scan", "scan_with_last"]

Sizes = tuple[int, int]
SIZES: dict[str | None, Sizes] = {"cpu": (1 << 5, 1 << 16), None: (1 << 17, 1 << 17)}
"""Numbers that make a step of the loop worth its start, and that a step of all chunks touches
where they are fewer, by platform; None is any other one."""
SHORTEST = 32
"""Steps a chunk has at least."""


def linear_scan(a: Any, b: Any, initial: Any | None, *, reset: Any | None, reverse: bool) -> Any:
    """See ssmcore.linear_scan."""
    return b if 0 in b.shape else scan_with_last(a, b, initial, reset=reset, reverse=reverse)[0]


def scan_with_last(
    a: Any, b: Any, initial: Any | None, *, reset: Any | None, reverse: bool
) -> tuple[Any, Any]:
    """Return all states and the last one (..., P), of at least one step."""
    a = _led(a if a.ndim > 1 else a[None, :], b.ndim)
    start = jnp.zeros_like(b[..., :1, :]) if initial is None else initial[..., None, :]
    keep = () if reset is None else (~_led(reset[..., None], b.ndim),)
    given = varying_alike((a, b, start.astype(b.dtype), *keep))
    h, last = _scan_p.bind(*given, reverse=reverse, after=False)
    return h, last[..., 0, :]


def _led(x: Any, ndim: int) -> Any:
    return jnp.reshape(x, (*[1] * (ndim - x.ndim), *x.shape))


def _at(x: Any, t: Any) -> Any:
    """Return x_t with its time axis, x itself where it does not change with time."""
    return x if x.shape[-2] == 1 else lax.dynamic_slice_in_dim(x, t, 1, -2)


def _carried(a: Any, h: Any, keep: tuple[Any, ...]) -> Any:
    """Return a h, zero where the state restarts: selected, so that nothing crosses a restart."""
    moved = a * h
    return jnp.where(keep[0], moved, jnp.zeros_like(moved)) if keep else moved


def _repeat(first: int, T: int, reverse: bool, step: Any, carry: Any) -> Any:
    """Return the carry after ``step(t, carry)`` for all t from the ``first`` step on.

    The index has no sign, so that it never counts from the end.
    """
    one, end = jnp.uint32(1), jnp.uint32(T)

    def body(now: tuple[Any, Any]) -> tuple[Any, Any]:
        i, carry = now
        return i + one, step(end - one - i if reverse else i, carry)

    return lax.while_loop(lambda now: now[0] < end, body, (jnp.uint32(first), carry))[1]


def _moved(a: Any, x: Any, keep: tuple[Any, ...], t: Any) -> Any:
    """Return a_t x, zero where the state restarts at t."""
    return _carried(_at(a, t), x, tuple(_at(k, t) for k in keep))


def _loop(a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool) -> tuple[Any, Any]:
    """Return all h and the last x, step by step: a, b, keep (..., T, P), start (..., 1, P).

    They replace b in a copy of it, which costs no more than zeros and is read and written at once.
    ``after``: h_t = a_{t-1} h_{t-1} + b_t is the same loop, but for its ends.
    """
    T = b.shape[-2]
    back = jnp.uint32(after)

    def put(out: Any, h: Any, t: Any) -> Any:
        return lax.dynamic_update_slice_in_dim(out, h.astype(b.dtype), t, -2)

    def step(t: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        x, out = carry
        h = _moved(a, x, keep, t + back if reverse else t - back) + _at(out, t)
        return h, put(out, h, t)

    x = arrays.widen(start)
    if not after:
        x, out = _repeat(0, T, reverse, step, (x, b))
        return out, x
    first, final = (T - 1, 0) if reverse else (0, T - 1)
    h = x + lax.slice_in_dim(b, first, first + 1, axis=-2)
    h, out = _repeat(1, T, reverse, step, (h, put(b, h, first)))
    return out, _moved(a, h, keep, final)


def _last(a: Any, b: Any, *keep: Any, reverse: bool, after: bool) -> tuple[Any, Any, Any]:
    """Return (p, x, kept): the last x from start s is p s + x, x alone where not ``kept``."""
    T = b.shape[-2]
    constant = a.shape[-2] == 1

    def step(t: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        p, x = carry
        now = _at(b, t)
        x = _moved(a, x + now, keep, t) if after else _moved(a, x, keep, t) + now
        return (p if constant else p * _at(a, t)), x

    p = arrays.widen(jnp.ones_like(a[..., :1, :]))
    p, x = _repeat(0, T, reverse, step, (p, arrays.widen(jnp.zeros_like(b[..., :1, :]))))
    if constant:
        p = powers.squares(arrays.widen(a), T.bit_length())[T.bit_length() - 1]
    return p, x, tuple(jnp.all(k, axis=-2, keepdims=True) for k in keep)


def _chunks(x: Any, count: int) -> Any:
    """Return (..., L, P) as (..., count, L / count, P); what has one step as (..., 1, 1, P)."""
    if x.shape[-2] == 1:
        return x[..., None, :, :]
    return jnp.reshape(x, (*x.shape[:-2], count, x.shape[-2] // count, x.shape[-1]))


def _starts(p: Any, x: Any, start: Any, *keep: Any, reverse: bool) -> tuple[Any, Any]:
    """Return x before each chunk, (..., count, 1, P), and the last, from what chunks do to one."""
    flat = [v[..., 0, :] for v in (p, x, *keep)]
    ends, last = _loop(flat[0], flat[1], start, *flat[2:], reverse=reverse, after=False)
    return _before(ends, arrays.widen(start), reverse)[..., None, :], last


def _chunk_length(shape: tuple[Any, ...], sizes: Sizes) -> Any:
    """Return how many steps a chunk has, a power of two; the whole length if one is enough.

    What ``jax.export`` leaves open counts as 1; a length that it leaves open is one chunk.
    """
    L, (enough, width) = shape[-2], sizes
    if not isinstance(L, int):
        return L
    known = math.prod(n for n in shape if isinstance(n, int))
    if known >= enough * L:
        return L
    steps = known // width  # of L, if each touches ``width`` numbers
    length = max(SHORTEST, 1 << max(1, steps).bit_length() - 1)
    return length if 2 * length <= L else L


def _float64() -> Any:
    """Return the context in which JAX has float64 even where it hides it, if it has one.

    Before ``jax.enable_x64`` it ended before loops were lowered, which then mixed up their indices.
    """
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else contextlib.nullcontext()


def _lowered(
    a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool, sizes: Sizes
) -> tuple[Any, Any]:
    """Return all h and the last x, carried in the widest float there is and rounded once each."""
    with _float64():
        h, x = _scan(a, b, start, *keep, reverse=reverse, after=after, sizes=sizes)
        return h, x.astype(b.dtype)


def _scan(
    a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool, sizes: Sizes
) -> tuple[Any, Any]:
    """Return all h and the last x."""
    L = b.shape[-2]
    T = _chunk_length(b.shape, sizes)
    count = L // T
    if count < 2:
        return _loop(a, b, start, *keep, reverse=reverse, after=after)
    if count * T < L:
        cut = count * T
        return _in_two(a, b, start, *keep, reverse=reverse, after=after, sizes=sizes, cut=cut)
    cuts = [_chunks(x, count) for x in (a, b, *keep)]
    p, x, kept = _last(*cuts, reverse=reverse, after=after)
    begin, last = _starts(p, x, start, *kept, reverse=reverse)
    h, _ = _loop(cuts[0], cuts[1], begin, *cuts[2:], reverse=reverse, after=after)
    return jnp.reshape(h, b.shape), last


def _in_two(
    a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool, sizes: Sizes, cut: int
) -> tuple[Any, Any]:
    """Return the same of the whole chunks and of the rest, one part after the other."""

    def part(where: slice, start: Any) -> tuple[Any, Any]:
        given = [x if x.shape[-2] == 1 else x[..., where, :] for x in (a, b, *keep)]
        return _scan(
            given[0], given[1], start, *given[2:], reverse=reverse, after=after, sizes=sizes
        )

    order = (slice(None, cut), slice(cut, None))
    first, x = part(order[1 if reverse else 0], start)
    second, x = part(order[0 if reverse else 1], x)
    return jnp.concatenate((second, first) if reverse else (first, second), axis=-2), x


_scan_p: Any = Primitive("ssmcore_linear_scan")
_scan_p.multiple_results = True


@functools.partial(jax.jit, static_argnames=("reverse", "after"))
def _apply(a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool) -> Any:
    return _scan_p.bind(a, b, start, *keep, reverse=reverse, after=after)


def _shapes(a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool) -> list[Any]:
    like_b = b.update(weak_type=False)  # like b also in how it is spread over devices
    return [like_b, like_b.update(shape=start.shape)]


def _before(h: Any, start: Any, reverse: bool) -> Any:
    """Return h_{t-1}, that of the step before t on the way that the state goes."""
    edge = (h[..., 1:, :], start) if reverse else (start, h[..., :-1, :])
    return jnp.concatenate(edge, axis=-2)


def _jvp(primals: Any, tangents: Any, *, reverse: bool, after: bool) -> tuple[Any, Any]:
    """What da_t adds to x_{t+1} joins db_t, or db_{t+1} and the last x where it comes after."""
    a, _, start, *keep = primals
    given = [
        jnp.zeros_like(x) if type(dx) is ad.Zero else dx
        for x, dx in zip(primals[:3], tangents[:3], strict=True)
    ]
    da, db, dstart = given
    out = _scan_p.bind(*primals, reverse=reverse, after=after)
    if type(tangents[0]) is ad.Zero:
        return out, _scan_p.bind(a, db, dstart, *keep, reverse=reverse, after=after)
    if not after:
        db = db + _carried(da, _before(out[0], start, reverse), tuple(keep))
        return out, _scan_p.bind(a, db, dstart, *keep, reverse=reverse, after=False)
    moved = _carried(da, out[0], tuple(keep))
    db = db + _before(moved, jnp.zeros_like(start), reverse)
    dh, dx = _scan_p.bind(a, db, dstart, *keep, reverse=reverse, after=True)
    return out, [dh, dx + (moved[..., :1, :] if reverse else moved[..., -1:, :])]


def _instantiated(ct: Any) -> Any:
    if type(ct) is not ad.Zero:
        return ct
    aval: Any = ct.aval
    return jnp.zeros(aval.shape, aval.dtype)


def _transpose(
    cts: Any, a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool
) -> list[Any]:
    """The cotangent of b_t is G_t of the scan the other way round, that of x_0 its last x."""
    if all(type(ct) is ad.Zero for ct in cts):
        return [None] * (3 + len(keep))
    g, last = varying_alike(tuple(map(_instantiated, cts)))
    G, dstart = _scan_p.bind(a, g, last, *keep, reverse=not reverse, after=not after)
    return [
        None,
        G if isinstance(b, ad.UndefinedPrimal) else None,
        dstart if isinstance(start, ad.UndefinedPrimal) else None,
        *[None] * len(keep),
    ]


def _batch(given: Any, axes: Any, *, reverse: bool, after: bool) -> tuple[Any, list[int]]:
    """One axis more in front; b and the start, which give the shape, have it in full."""
    count = next(x.shape[k] for x, k in zip(given, axes, strict=True) if k is not None)

    def moved(i: int) -> Any:
        x, k = given[i], axes[i]
        x = x[None] if k is None else jnp.moveaxis(x, k, 0)
        return jnp.broadcast_to(x, (count, *x.shape[1:])) if i in (1, 2) else x

    return _scan_p.bind(*map(moved, range(len(given))), reverse=reverse, after=after), [0, 0]


_scan_p.def_impl(_apply)
_scan_p.def_abstract_eval(_shapes)
ad.primitive_jvps[_scan_p] = _jvp
ad.primitive_transposes[_scan_p] = _transpose
batching.primitive_batchers[_scan_p] = _batch
_rules = {
    _platform: mlir.lower_fun(functools.partial(_lowered, sizes=_sizes), multiple_results=True)
    for _platform, _sizes in SIZES.items()
}
for _platform, _rule in (_rules | {"cuda": _cuda.lowering(_rules[None], _cuda.scan)}).items():
    mlir.register_lowering(_scan_p, _rule, platform=_platform)

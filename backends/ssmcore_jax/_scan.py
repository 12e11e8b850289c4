"""``linear_scan`` on JAX: one primitive with rules for jit, jvp, vjp and vmap.

h_t = a_t h_{t-1} + b_t runs as a compiled loop over time. Where one step touches too few numbers
to be worth its start, chunks of the sequence advance together: their last states come first, then
the states they start from, then all states. On a CPU that is done block by block, each of so few
chunks that what the first pass has read is still in the cache for the last. Nothing is moved or
padded but where the length is no multiple of the block.

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

Sizes = tuple[int, int, int]
SIZES: dict[str | None, Sizes] = {
    "cpu": (1 << 5, 1 << 9, 1 << 6),
    None: (1 << 17, 1 << 17, 1 << 30),
}
"""By platform, None is any other one: numbers that make a step of the loop worth its start; that a
step of all chunks of a block touches where they are fewer; steps a chunk has at most."""
SHORTEST = 32
"""Steps a chunk has at least."""
TOGETHER = 8
"""Steps of a first pass that are compiled into one, which reads the memory in longer pieces."""


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


def _index(x: Any, block: Any, t: Any) -> list[Any]:
    """Return the start of step t of a block in x (..., blocks, chunks, T, P), or x (..., T, P)."""
    zero = jnp.uint32(0)
    moving = {x.ndim - 2: t} if block is None else {x.ndim - 4: block, x.ndim - 2: t}
    return [moving.get(i, zero) if n != 1 else zero for i, n in enumerate(x.shape)]


def _at(x: Any, block: Any, t: Any) -> Any:
    """Return step t of a block of x, (..., 1, chunks, 1, P); all of what does not change."""
    single = (x.ndim - 2,) if block is None else (x.ndim - 4, x.ndim - 2)
    sizes = [1 if i in single else n for i, n in enumerate(x.shape)]
    return lax.dynamic_slice(x, _index(x, block, t), sizes)


def _carried(a: Any, h: Any, keep: tuple[Any, ...]) -> Any:
    """Return a h, zero where the state restarts: selected, so that nothing crosses a restart."""
    moved = a * h
    return jnp.where(keep[0], moved, jnp.zeros_like(moved)) if keep else moved


def _repeat(first: int, T: int, reverse: bool, step: Any, carry: Any, together: int = 1) -> Any:
    """Return the carry after ``step(t, carry)`` for all t from the ``first`` step on.

    The index has no sign, so that it never counts from the end.
    """
    end = jnp.uint32(T)

    def body(now: tuple[Any, Any]) -> tuple[Any, Any]:
        i, carry = now
        for _ in range(together):
            i, carry = i + jnp.uint32(1), step(end - jnp.uint32(1) - i if reverse else i, carry)
        return i, carry

    return lax.while_loop(lambda now: now[0] < end, body, (jnp.uint32(first), carry))[1]


def _moved(a: Any, x: Any, keep: tuple[Any, ...], block: Any, t: Any) -> Any:
    """Return a_t x, zero where the state restarts at t."""
    return _carried(_at(a, block, t), x, tuple(_at(k, block, t) for k in keep))


def _loop(
    a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool, block: Any = None
) -> tuple[Any, Any]:
    """Return b with all h of a block in place of it and the last x of its chunks, step by step.

    a, b, keep (..., blocks, chunks, T, P), start (..., 1, chunks, 1, P), or all without blocks and
    chunks. A copy of b costs no more than zeros and is read and written at once.
    ``after``: h_t = a_{t-1} h_{t-1} + b_t is the same loop, but for its ends.
    """
    T = b.shape[-2]
    back = jnp.uint32(after)

    def put(out: Any, h: Any, t: Any) -> Any:
        return lax.dynamic_update_slice(out, h.astype(b.dtype), _index(out, block, t))

    def step(t: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        x, out = carry
        h = _moved(a, x, keep, block, t + back if reverse else t - back) + _at(out, block, t)
        return h, put(out, h, t)

    x = arrays.widen(start)
    if not after:
        x, out = _repeat(0, T, reverse, step, (x, b))
        return out, x
    first, final = jnp.uint32(T - 1 if reverse else 0), jnp.uint32(0 if reverse else T - 1)
    h = x + _at(b, block, first)
    h, out = _repeat(1, T, reverse, step, (h, put(b, h, first)))
    return out, _moved(a, h, keep, block, final)


def _last(
    a: Any, b: Any, *keep: Any, reverse: bool, after: bool, block: Any
) -> tuple[Any, Any, Any]:
    """Return (p, x, kept) of the chunks of a block, (..., 1, chunks, 1, P).

    The last x from start s is p s + x, x alone where not ``kept``. Where a is constant, so is p,
    and is not asked for here.
    """
    constant = a.shape[-2] == 1

    def step(t: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        p, x, kept = carry
        now = _at(b, block, t)
        x = _moved(a, x + now, keep, block, t) if after else _moved(a, x, keep, block, t) + now
        kept = tuple(k & _at(r, block, t) for k, r in zip(kept, keep, strict=True))
        return (p if constant else p * _at(a, block, t)), x, kept

    one, zero, *ever = (_at(v, jnp.uint32(0), jnp.uint32(0)) for v in (a, b, *keep))
    begin = (
        arrays.widen(jnp.ones_like(one)),
        arrays.widen(jnp.zeros_like(zero)),
        tuple(map(jnp.ones_like, ever)),
    )
    p, x, kept = _repeat(0, b.shape[-2], reverse, step, begin, TOGETHER)
    return p, x, kept


def _blocks(x: Any, count: int, T: Any) -> Any:
    """Return (..., L, P) as (..., blocks, count, T, P); what has one step as (..., 1, 1, 1, P)."""
    cut = (1, 1, 1) if x.shape[-2] == 1 else (x.shape[-2] // (count * T), count, T)
    return jnp.reshape(x, (*x.shape[:-2], *cut, x.shape[-1]))


def _starts(p: Any, x: Any, start: Any, *keep: Any, reverse: bool) -> tuple[Any, Any]:
    """Return x before each chunk of a block and the last, from what the chunks do to one."""
    flat = [jnp.swapaxes(v, -3, -2) for v in (p, x, *keep)]
    ends, last = _loop(flat[0], flat[1], start, *flat[2:], reverse=reverse, after=False)
    return jnp.swapaxes(_before(ends, start, reverse), -3, -2), last


def _chunks(shape: tuple[Any, ...], sizes: Sizes) -> tuple[int, Any]:
    """Return how many chunks a block has and how many steps, a power of two, each of them.

    One of the whole length if that is enough. What ``jax.export`` leaves open counts as 1; a length
    that it leaves open is one chunk.
    """
    L, (enough, width, longest) = shape[-2], sizes
    if not isinstance(L, int):
        return 1, L
    touched = max(1, math.prod(n for n in shape if isinstance(n, int)) // L)
    if touched >= enough:
        return 1, L
    count = width // touched
    steps = 1 << max(1, L // count).bit_length() - 1
    steps = max(SHORTEST, min(steps, longest))
    count = min(count, L // steps)
    return (count, steps) if count > 1 else (1, L)


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
    count, T = _chunks(b.shape, sizes)
    if count > 1 and L % (count * T):
        cut = L - L % (count * T)
        return _in_two(a, b, start, *keep, reverse=reverse, after=after, sizes=sizes, cut=cut)
    way: Any = {"reverse": reverse, "after": after}
    if count == 1:  # as they are: axes of one number would make XLA copy a
        return _loop(a, b, start, *keep, **way)
    a, out, *keep_in = (_blocks(x, count, T) for x in (a, b, *keep))
    x = arrays.widen(_blocks(start, 1, 1))
    power = _power(a, T) if a.shape[-2] == 1 else None

    def step(k: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        x, out = carry
        p, ends, kept = _last(a, out, *keep_in, **way, block=k)
        begin, x = _starts(p if power is None else power, ends, x, *kept, reverse=reverse)
        return x, _loop(a, out, begin, *keep_in, **way, block=k)[0]

    x, out = _repeat(0, out.shape[-4], reverse, step, (x, out))
    return jnp.reshape(out, b.shape), jnp.reshape(x, start.shape)


def _power(a: Any, T: int) -> Any:
    """Return a^T in the widest float, T a power of two."""
    return powers.squares(arrays.widen(a), T.bit_length())[T.bit_length() - 1]


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

"""Reference scans: parallel prefix in the array API standard, O(L) work, O(log L) levels.

Time is axis 0 inside this file. Pairs of neighbouring steps are combined, the half as long
sequence is scanned, and the states in between are filled in (odd-even reduction; Blelloch 1990).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ssmcore import arrays, backend, powers
from ssmcore.errors import SSMError
from ssmcore.typing import Array

__all__ = ["constant_prefix", "diagonal_scan", "linear_scan", "selective_scan", "varying_prefix"]


def _interleave(even: Array, odd: Array) -> Array:
    """Return even[0], odd[0], even[1], odd[1], ... along axis 0."""
    xp = arrays.namespace(even, odd)
    n = odd.shape[0]
    mixed = xp.reshape(xp.stack((even[:n, ...], odd), axis=1), (2 * n, *odd.shape[1:]))
    return mixed if even.shape[0] == n else xp.concat((mixed, even[n:, ...]), axis=0)


def _carried(keep: Array | None, moved: Array) -> Array:
    """Return ``moved`` where ``keep``, else zero: selected, so that nothing crosses a restart."""
    if keep is None:
        return moved
    xp = arrays.namespace(moved)
    return xp.where(keep, moved, xp.zeros_like(moved))


def _combined(keep: Array | None, length: int) -> tuple[Array | None, Array | None, Array | None]:
    """Return keep of the right steps, of the pairs, and of the even steps from the third on."""
    if keep is None:
        return None, None, None
    end = length - length % 2
    right = keep[1:end:2, ...]
    return right, right & keep[0:end:2, ...], keep[2::2, ...]


def varying_prefix(a: Array, keep: Array | None, b: Array) -> Array:
    """Return h_t = a_t keep_t h_{t-1} + b_t, h_{-1} = 0, along axis 0.

    ``a`` and ``keep`` (False where the state restarts) broadcast against ``b``.
    """
    length = b.shape[0]
    if length < 2:
        return b
    xp = arrays.namespace(a, b)
    end = length - length % 2
    right, both, even_keep = _combined(keep, length)
    a_left, a_right = a[0:end:2, ...], a[1:end:2, ...]
    pair = _carried(right, a_right * b[0:end:2, ...]) + b[1:end:2, ...]
    odd = varying_prefix(a_right * a_left, both, pair)
    before = odd[: (length - 1) // 2, ...]
    even = _carried(even_keep, a[2::2, ...] * before) + b[2::2, ...]
    return _interleave(xp.concat((b[:1, ...], even), axis=0), odd)


def constant_prefix(
    advance: Callable[[int, Array], Array], keep: Array | None, b: Array, level: int = 0
) -> Array:
    """Return h_t = A keep_t h_{t-1} + b_t along axis 0, for a constant transition A.

    ``advance(k, x)`` is A^(2^k) x; ``keep`` (False where the state restarts) broadcasts.
    """
    length = b.shape[0]
    if length < 2:
        return b
    xp = arrays.namespace(b)
    end = length - length % 2
    right, both, even_keep = _combined(keep, length)
    pair = _carried(right, advance(level, b[0:end:2, ...])) + b[1:end:2, ...]
    odd = constant_prefix(advance, both, pair, level + 1)
    before = odd[: (length - 1) // 2, ...]
    even = _carried(even_keep, advance(level, before)) + b[2::2, ...]
    return _interleave(xp.concat((b[:1, ...], even), axis=0), odd)


def _scan(*given: Array | None, **options: Any) -> Array:
    """Run linear_scan as the library of the arrays has it."""
    run = backend.of(given[1]).primitives().get("linear_scan", linear_scan)
    h: Array = run(*given, **options)
    return h


def _led(x: Array, ndim: int) -> Array:
    """Return ``x`` with leading axes of 1 up to ``ndim`` axes, so that time can come first."""
    return arrays.namespace(x).reshape(x, (*([1] * (ndim - x.ndim)), *x.shape))


def _flip(x: Array | None, axis: int) -> Array | None:
    return None if x is None else arrays.namespace(x).flip(x, axis=axis)


def linear_scan(
    a: Array, b: Array, initial: Array | None, *, reset: Array | None, reverse: bool
) -> Array:
    """See ssmcore.linear_scan."""
    if backend.is_open(b, b.shape[-2]):
        msg = (
            "linear_scan: the length is left open by the export, and that takes a native kernel "
            "(numba on CPUs, Triton on CUDA); install it, or export one program for each length"
        )
        raise SSMError(msg)
    if b.shape[-2] == 0:
        return b
    if not reverse:
        return _forward_scan(a, b, initial, reset)
    turned = a if a.ndim < 2 else _flip(a, -2)
    return _flip(_forward_scan(turned, _flip(b, -2), initial, _flip(reset, -1)), -2)


def _forward_scan(a: Array, b: Array, initial: Array | None, reset: Array | None) -> Array:
    xp = arrays.namespace(a, b)
    keep = None if reset is None else ~_led(reset, b.ndim - 1)[..., None]
    a = a if a.ndim < 2 else _led(a, b.ndim)
    first = a if a.ndim < 2 else a[..., :1, :]
    if initial is not None:
        first_keep = None if keep is None else keep[..., :1, :]
        carried = _carried(first_keep, first * initial[..., None, :])
        b = xp.concat((b[..., :1, :] + carried, b[..., 1:, :]), axis=-2)
    elif b.shape[-2] == 1:
        return xp.concat((b,), axis=-2)  # never the caller's own memory
    in_time = arrays.moveaxis(b, -2, 0)
    keep_in_time = None if keep is None else arrays.moveaxis(keep, -2, 0)
    if a.ndim < 2 or a.shape[-2] == 1:
        levels = powers.squares(first if a.ndim < 2 else first[..., 0, :], b.shape[-2].bit_length())
        h = constant_prefix(lambda k, x: levels[k, ...] * x, keep_in_time, in_time)
    else:
        a_in_time = arrays.widen(arrays.moveaxis(a, -2, 0))
        h = varying_prefix(a_in_time, keep_in_time, arrays.widen(in_time))
        h = xp.astype(h, b.dtype, copy=False)
    return arrays.moveaxis(h, 0, -2)


def _read(C: Array, h: Array, channels: bool) -> Array:
    """Return Re(C h): ``channels`` sums each channel's own states, else mixes all."""
    xp = arrays.namespace(C, h)
    y = xp.sum(C * h, axis=-1) if channels else h @ xp.matrix_transpose(C)
    return xp.real(y) if arrays.is_complex(y) else y


def _fed(y: Array, D: Array | None, u: Array) -> Array:
    return y if D is None else y + D * u


def diagonal_scan(
    a: Array,
    B: Array,
    C: Array,
    u: Array,
    initial: Array | None,
    *,
    D: Array | None = None,
    reset: Array | None,
    reverse: bool,
) -> tuple[Array, Array]:
    """See ssmcore.diagonal_scan."""
    xp = arrays.namespace(a, B, C, u)
    channels = a.ndim == 2
    if channels:
        drive = B * u[..., None]
    else:
        drive = xp.astype(u, B.dtype, copy=False) @ xp.matrix_transpose(B)
    states = math.prod(a.shape)
    flat = xp.reshape(drive, (*u.shape[:-1], states))
    if initial is None:
        initial = xp.zeros((*u.shape[:-2], *a.shape), dtype=a.dtype, device=arrays.device(u))
    start = xp.reshape(initial, (*u.shape[:-2], states))
    h = _scan(xp.reshape(a, (states,)), flat, start, reset=reset, reverse=reverse)
    h = xp.reshape(h, drive.shape)
    y = _fed(_read(C, h, channels), D, u)
    if u.shape[-2] == 0:
        return y, initial
    last = 0 if reverse else u.shape[-2] - 1
    return y, h[..., last, :, :] if channels else h[..., last, :]


def selective_scan(
    u: Array,
    delta: Array,
    A: Array,
    B: Array,
    C: Array,
    D: Array | None,
    *,
    initial: Array | None,
    reset: Array | None,
) -> tuple[Array, Array]:
    """See ssmcore.selective_scan."""
    xp = arrays.namespace(u, delta, A, B, C)
    B_t = B if B.ndim == u.ndim + 1 else B[..., None, :]
    C_t = C if C.ndim == u.ndim + 1 else C[..., None, :]
    shape = (*u.shape, A.shape[-1])
    states = math.prod(A.shape)
    flat = (*u.shape[:-1], states)
    dtype = xp.result_type(A.dtype, B.dtype)
    wide, wide_A = arrays.widen(delta)[..., None], arrays.widen(A)
    a = xp.exp(wide * wide_A)
    b = xp.broadcast_to(arrays.widen((delta * u)[..., None] * B_t), shape)
    b = xp.astype(b, xp.result_type(a.dtype, b.dtype), copy=False)
    if initial is None:
        initial = xp.zeros((*u.shape[:-2], *A.shape), dtype=dtype, device=arrays.device(u))
    start = xp.astype(xp.reshape(initial, (*u.shape[:-2], states)), b.dtype, copy=False)
    h = _scan(xp.reshape(a, flat), xp.reshape(b, flat), start, reset=reset, reverse=False)
    h = xp.astype(xp.reshape(h, shape), dtype, copy=False)
    y = _read(C_t, h, channels=True) * (2.0 if arrays.is_complex(A) else 1.0)
    return _fed(y, D, u), h[..., -1, :, :] if u.shape[-2] else initial

"""The one engine: runs any discrete system as recurrence, scan or convolution.

A state that changes little from step to step is rounded the same way many times over: in float32
that adds up to L / 2 ulp, 1e-4 of the peak at L = 4096. So a recurrence carries its state, and a
scan with time-varying coefficients their products, in float64 wherever the library has it.

Padding (steps at or beyond ``lengths``) is zeroed before anything else sees it, never moves a
state, and gives output zero. ``reset`` replaces the state by zero before its step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ssmcore import arrays, backend
from ssmcore._open import OPEN_BITS
from ssmcore.systems import System
from ssmcore.typing import Array

__all__ = ["hide_padding", "run", "valid_steps"]


def valid_steps(lengths: Array | None, u: Array) -> Array | None:
    """Return which steps are not padding, (..., L) bool, or None when all are."""
    if lengths is None:
        return None
    return arrays.arange(u, u.shape[-2], lengths.dtype) < lengths[..., None]


def hide_padding(u: Array, valid: Array | None) -> Array:
    """Return u (..., L, H) with zero, whatever is there, wherever ``valid`` is False."""
    if valid is None:
        return u
    xp = arrays.namespace(u)
    return xp.where(valid[..., None], u, xp.zeros_like(u))


def run(
    system: System,
    u: Array,
    x: Array,
    mode: str,
    reset: Array | None,
    lengths: Array | None,
    return_state: bool,
) -> tuple[Array, Array | None]:
    """Run ``system`` over u (..., L, H) from state ``x`` (stored form); return (y, state or None).

    y and the state come back in the dtype of ``u`` and ``x``; inside, everything is in the
    system's own dtype.
    """
    xp = arrays.namespace(u)
    if u.shape[-2] == 0:
        return xp.zeros_like(u), (xp.astype(x, x.dtype, copy=True) if return_state else None)
    valid = valid_steps(lengths, u)
    u = hide_padding(u, valid)
    if valid is not None:
        reset = reset if reset is None else reset & valid
    work = xp.astype(u, system.dtype, copy=False)
    start = xp.astype(x, system.dtype, copy=False)
    if system.time_varying:
        y, last = _run_varying(system, work, start, mode, reset, valid)
    else:
        y, last = _run_constant(system, work, start, mode, reset, lengths, valid, return_state)
    y = xp.astype(y, work.dtype, copy=False)
    if system.D is not None and mode != "scan":  # a scan has added it
        y = y + system.D * work
    y = hide_padding(y, valid)
    y = xp.astype(y, u.dtype, copy=False)
    return y, (xp.astype(last, x.dtype, copy=False) if return_state else None)


def _run_varying(
    system: Any, u: Array, x: Array, mode: str, reset: Array | None, valid: Array | None
) -> tuple[Array, Array]:
    system = system if valid is None else system.hold(valid)
    if mode == "scan":
        y, last = system.scan(u, x, reset)
        return y, last
    inputs = {name: _time_first(c, -3, u) for name, c in system.coefficients().items()}
    return _recur(u, arrays.widen(x), reset, None, inputs, lambda h, v, now: system.step(h, v, now))


def _run_constant(
    system: Any,
    u: Array,
    stored: Array,
    mode: str,
    reset: Array | None,
    lengths: Array | None,
    valid: Array | None,
    return_state: bool,
) -> tuple[Array, Array | None]:
    if mode == "recurrence":
        fields = {f.name: getattr(system, f.name) for f in dataclasses.fields(system)}
        arrays_only = {k: arrays.widen(v) for k, v in fields.items() if hasattr(v, "dtype")}
        step = dataclasses.replace(system, **arrays_only).stepper()
        start = arrays.widen(system.state(stored))
        y, last = _recur(arrays.widen(u), start, reset, valid, {}, lambda h, v, _: step(h, v))
        return y, system.stored(last)
    x = system.state(stored)
    if mode == "scan":
        y, last = system.scan(u, x, reset)
    else:
        y, last = system.convolve(u, x), None
    if not return_state:
        return y, None
    if last is None or lengths is not None:
        last = _last_state(system, u, x, reset, lengths)
    return y, system.stored(last)


def _last_state(
    system: Any, u: Array, x: Array, reset: Array | None, lengths: Array | None
) -> Array:
    """Return the state after the last valid step: A^n x + sum_j A^j B u_{n-1-j}.

    With a reset only the inputs from the last one on count, and not ``x``.
    """
    xp = arrays.namespace(u)
    L = u.shape[-2]
    if reset is not None:
        u, x = _since_last_reset(u, x, reset)
    if lengths is None:
        last, steps = xp.flip(u, axis=-2), None
    else:
        steps = xp.broadcast_to(lengths, u.shape[:-2])
        back = steps[..., None] - 1 - arrays.arange(u, L, lengths.dtype)
        index = xp.where(back < 0, xp.zeros_like(back), back)[..., None]
        last = xp.take_along_axis(u, xp.broadcast_to(index, u.shape), axis=-2)
        last = xp.where((back >= 0)[..., None], last, xp.zeros_like(last))
    return system.accumulate(last) + _advance(system, x, L, steps)


def _since_last_reset(u: Array, x: Array, reset: Array) -> tuple[Array, Array]:
    """Zero the inputs before each sequence's last reset, and its state if there is one."""
    xp = arrays.namespace(u)
    reset = xp.broadcast_to(reset, u.shape[:-1])
    time = arrays.arange(u, u.shape[-2], xp.int32)
    latest = xp.max(xp.where(reset, time, -xp.ones_like(time)), axis=-1)
    u = xp.where((time >= latest[..., None])[..., None], u, xp.zeros_like(u))
    fresh = xp.reshape(latest >= 0, (*latest.shape, *([1] * (x.ndim - latest.ndim))))
    return u, xp.where(fresh, xp.zeros_like(x), x)


def _advance(system: Any, x: Array, length: int, steps: Array | None) -> Array:
    """Return A^n x with n = ``length`` or, per sequence, ``steps`` (at most ``length``)."""
    xp = arrays.namespace(x)
    if backend.is_open(x, length):
        count = OPEN_BITS
        if steps is None:
            steps = xp.full((), length, dtype=xp.int32, device=arrays.device(x))
    else:
        count = length.bit_length()
    power = system.advance(count)
    for k in range(count):
        if steps is None:
            x = power(k, x) if length >> k & 1 else x
            continue
        bit = steps // 2**k % 2 == 1
        bit = xp.reshape(bit, (*bit.shape, *([1] * (x.ndim - bit.ndim))))
        x = xp.where(bit, power(k, x), x)
    return x


def _time_first(c: Array, axis: int, u: Array) -> Array:
    """Return ``c`` with its time axis first, repeated to the length of ``u`` where it is 1."""
    xp = arrays.namespace(c)
    shape = list(c.shape)
    shape[axis] = u.shape[-2]
    return arrays.moveaxis(xp.broadcast_to(c, tuple(shape)), axis, 0)


def _recur(
    u: Array,
    x: Array,
    reset: Array | None,
    valid: Array | None,
    coefficients: dict[str, Array],
    step: Any,
) -> tuple[Array, Array]:
    """Run the definition, one step after the other."""
    xp = arrays.namespace(u)
    inputs = {"u": _time_first(u, -2, u), **coefficients}
    for name, mask in (("reset", reset), ("valid", valid)):
        if mask is not None:
            inputs[name] = _time_first(xp.broadcast_to(mask, u.shape[:-1]), -1, u)
    tail = [1] * (x.ndim - u.ndim + 2)

    def one(h: Array, now: dict[str, Array]) -> tuple[Array, Array]:
        before = h
        if "reset" in now:
            mask = xp.reshape(now["reset"], (*now["reset"].shape, *tail))
            h = xp.where(mask, xp.zeros_like(h), h)
        h, y = step(h, now["u"], now)
        if "valid" in now:
            h = xp.where(xp.reshape(now["valid"], (*now["valid"].shape, *tail)), h, before)
        return h, y

    last, y = backend.of(u).fold(one, x, inputs)
    return arrays.moveaxis(y, 0, -2), last

"""A window of rows that slides over a chunk of steps, in registers."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmcore_torch._triton.access import lanes_of, place

__all__ = ["backward", "forward"]


@triton.jit
def past(u, state, pu, ps, time, length, valid, TAPS: tl.constexpr, WIDE: tl.constexpr):
    """Return row ``time`` of (state, u); ``pu`` and ``ps`` point to their first rows."""
    now = time + tl.zeros(valid.shape, tl.int64)
    old = tl.load(ps + now * state.time, mask=valid & (now < TAPS - 1), other=0.0).to(WIDE)
    step = now - (TAPS - 1)
    fresh = tl.load(pu + step * u.time, mask=valid & (step >= 0) & (step < length), other=0.0).to(
        WIDE
    )
    return tl.where(step < 0, old, fresh)


@triton.jit
def forward(
    u,
    weight,
    bias,
    state,
    y,
    length,
    lanes,
    columns,
    chunk,
    TAPS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write a chunk of y."""
    row, column, valid = lanes_of(lanes, columns, BLOCK)
    first = tl.program_id(1).to(tl.int64) * chunk
    steps = tl.minimum(length - first, chunk)
    pu = place(u, row, column, first * 0)
    ps = place(state, row, column, first * 0)
    py = place(y, row, column, first)
    pw = place(weight, row * 0, column, first * 0)
    w = ()
    window = ()
    for k in tl.static_range(TAPS):
        offset = tl.full((), k, tl.int64) * weight.time
        w += (tl.load(pw + offset, mask=valid, other=0.0).to(WIDE),)
        if k > 0:
            window += (past(u, state, pu, ps, first + k - 1, length, valid, TAPS, WIDE),)
    b = tl.zeros([BLOCK], WIDE)
    if bias is not None:
        b = tl.load(place(bias, row * 0, column, first * 0), mask=valid, other=0.0).to(WIDE)
    for t in range(0, steps, T):
        fresh = ()
        for i in tl.static_range(T):
            at = first + t + i + TAPS - 1
            fresh += (past(u, state, pu, ps, at, length, valid, TAPS, WIDE),)
        rows = window + fresh
        for i in tl.static_range(T):
            now = t + i + tl.zeros([BLOCK], tl.int64)
            out = b
            for k in tl.static_range(TAPS):
                out += w[k] * rows[i + k]
            tl.store(
                py + now * y.time, out.to(y.pointer.dtype.element_ty), mask=valid & (now < steps)
            )
        window = rows[T:]


@triton.jit
def backward(
    u,
    weight,
    state,
    gy,
    gafter,
    du,
    dstate,
    partial,
    length,
    lanes,
    columns,
    chunk,
    TAPS: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write a chunk of the gradient of (state, u), and its partial sums for weight and bias.

    The gradient of row i of (state, u) is sum_k weight_k gy_{i-k}, and gafter for the last K - 1.
    """
    row, column, valid = lanes_of(lanes, columns, BLOCK)
    index = tl.program_id(1).to(tl.int64)
    first = index * chunk
    steps = tl.minimum(length + TAPS - 1 - first, chunk)
    pu = place(u, row, column, first * 0)
    ps = place(state, row, column, first * 0)
    pg = place(gy, row, column, first * 0)
    pa = place(gafter, row, column, first * 0)
    pd = place(du, row, column, first * 0)
    pe = place(dstate, row, column, first * 0)
    pw = place(weight, row * 0, column, first * 0)
    w = ()
    window = ()
    back = ()
    sums = ()
    for k in tl.static_range(TAPS):
        offset = tl.full((), k, tl.int64) * weight.time
        w += (tl.load(pw + offset, mask=valid, other=0.0).to(WIDE),)
        sums += (tl.zeros([BLOCK], WIDE),)
        if k > 0:
            window += (past(u, state, pu, ps, first + k - 1, length, valid, TAPS, WIDE),)
            then = first - TAPS + k + tl.zeros([BLOCK], tl.int64)
            ok = valid & (then >= 0) & (then < length)
            back += (tl.load(pg + then * gy.time, mask=ok, other=0.0).to(WIDE),)
    total = tl.zeros([BLOCK], WIDE)
    for t in range(0, steps, T):
        fresh = ()
        grads = ()
        for i in tl.static_range(T):
            at = first + t + i + TAPS - 1
            fresh += (past(u, state, pu, ps, at, length, valid, TAPS, WIDE),)
            now = first + t + i + tl.zeros([BLOCK], tl.int64)
            ok = valid & (now < length) & (now < first + steps)
            grads += (tl.load(pg + now * gy.time, mask=ok, other=0.0).to(WIDE),)
        rows = window + fresh
        gs = back + grads
        for i in tl.static_range(T):
            now = first + t + i + tl.zeros([BLOCK], tl.int64)
            g = gs[i + TAPS - 1]
            total += g
            new = ()
            for k in tl.static_range(TAPS):
                new += (sums[k] + g * rows[i + k],)
            sums = new
            ok = valid & (now < first + steps)
            late = now - length
            through = tl.load(pa + late * gafter.time, mask=ok & (late >= 0), other=0.0).to(WIDE)
            for k in tl.static_range(TAPS):
                through += w[k] * gs[i + TAPS - 1 - k]
            step = now - (TAPS - 1)
            out = through.to(du.pointer.dtype.element_ty)
            tl.store(pd + step * du.time, out, mask=ok & (step >= 0))
            out = through.to(dstate.pointer.dtype.element_ty)
            tl.store(pe + now * dstate.time, out, mask=ok & (step < 0))
        window = rows[T:]
        back = gs[T:]
    pp = place(partial, row, column, index)
    for k in tl.static_range(TAPS):
        tl.store(pp + k, sums[k], mask=valid)
    tl.store(pp + TAPS, total, mask=valid)

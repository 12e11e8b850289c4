"""The passes of a selective scan over a chunk of steps, but for its gradients.

Lanes are channels; the states of a channel and the time are in registers: no scan, no shared
memory. The rows of the next T steps are on their way while the states of these T steps move.
Steps past the end have delta = 0, and so the transition 1 and no input.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmcore_torch._triton.access import ahead

__all__ = ["LOG2E", "at", "ends", "forward", "keeps_of", "program_of", "rows_of", "states_at"]

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def program_of(channels, BLOCK: tl.constexpr):
    """Return the row of this program and its first channel."""
    blocks = tl.cdiv(channels, BLOCK)
    return (tl.program_id(0) // blocks).to(tl.int64), (tl.program_id(0) % blocks) * BLOCK


@triton.jit
def at(x, row, time, lane):
    """Return pointers to the elements (row, time, lane) of ``x``, which may be None."""
    pointers = lane
    if x is not None:
        pointers = x.pointer + (row * x.row + time * x.time + lane.to(tl.int64) * x.lane)
    return pointers


@triton.jit
def states_at(x, row, time, channel, n):
    """Return pointers (N, channels) to states at (row, time)."""
    offset = channel.to(tl.int64)[None, :] * x.lane + n.to(tl.int64)[:, None] * x.inner
    return x.pointer + (row * x.row + time * x.time + offset)


@triton.jit
def rows_of(
    x, pointers, lane, lanes, left, WIDE: tl.constexpr, T: tl.constexpr, SIGN: tl.constexpr
):
    """Return T rows from ``pointers`` on, in the direction SIGN; zero after ``left`` of them."""
    rows = ()
    for i in tl.static_range(T):
        ok = (lane < lanes) & (left + 0 * lane > i)
        rows += (tl.load(ahead(x, pointers, SIGN * i), mask=ok, other=0.0).to(WIDE),)
    return rows


@triton.jit
def keeps_of(keep, pointers, left, T: tl.constexpr, SIGN: tl.constexpr):
    """Return T times whether the state is carried into the step, as numbers."""
    rows = ()
    for i in tl.static_range(T):
        if keep is None:
            rows += (1,)
        else:
            rows += (tl.load(ahead(keep, pointers, SIGN * i), mask=left > i, other=1),)
    return rows


@triton.jit
def ends(
    u,
    delta,
    A,
    B,
    keep,
    end,
    total,
    alive,
    length,
    channels,
    states,
    chunk,
    skipped,
    PULLED: tl.constexpr,
    WIDE: tl.constexpr,
    NB: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write what a chunk maps the state 0 to, the sum of its steps, and whether none restarts.

    The state moves as x -> exp(delta A) x + delta u B, or backwards as x -> exp(delta A) (x + u B)
    if PULLED. The chunk is ``skipped`` + the program's index.
    """
    row, channel = program_of(channels, BLOCK)
    channel = channel + tl.arange(0, BLOCK)
    n = tl.arange(0, NB)
    index = tl.program_id(1).to(tl.int64)
    first = (index + skipped) * chunk
    steps = tl.minimum(length - first, chunk)
    SIGN: tl.constexpr = -1 if PULLED else 1
    begin = first
    if PULLED:
        begin = first + steps - 1
    inside = (channel < channels)[None, :] & (n < states)[:, None]
    a = tl.load(states_at(A, row, begin, channel, n), mask=inside, other=0.0).to(WIDE) * LOG2E
    pu = at(u, row, begin, channel)
    pd = at(delta, row, begin, channel)
    pb = at(B, row, begin, n)
    pk = at(keep, row, begin, begin * 0)
    x = tl.zeros([NB, BLOCK], WIDE)
    summed = tl.zeros([BLOCK], WIDE)
    whole = 1
    for t in range(0, steps, T):
        left = steps - t
        u_t = rows_of(u, pu, channel, channels, left, WIDE, T, SIGN)
        d_t = rows_of(delta, pd, channel, channels, left, WIDE, T, SIGN)
        b_t = rows_of(B, pb, n, states, left, WIDE, T, SIGN)
        k_t = keeps_of(keep, pk, left, T, SIGN)
        for i in tl.static_range(T):
            decay = tl.exp2(d_t[i][None, :] * a)
            summed += d_t[i]
            if PULLED:
                x = decay * (x + u_t[i][None, :] * b_t[i][:, None])
                if keep is not None:
                    x = tl.where(k_t[i] != 0, x, 0.0)
            else:
                x = decay * x
                if keep is not None:
                    x = tl.where(k_t[i] != 0, x, 0.0)
                x += (d_t[i] * u_t[i])[None, :] * b_t[i][:, None]
            if keep is not None:
                whole = whole * k_t[i]
        pu = ahead(u, pu, SIGN * T)
        pd = ahead(delta, pd, SIGN * T)
        pb = ahead(B, pb, SIGN * T)
        pk = ahead(keep, pk, SIGN * T)
    tl.store(states_at(end, row, index, channel, n), x, mask=inside)
    tl.store(at(total, row, index, channel), summed, mask=channel < channels)
    if keep is not None:
        tl.store(at(alive, row, index, index * 0), whole)


@triton.jit
def forward(
    u,
    delta,
    A,
    B,
    C,
    D,
    keep,
    start,
    y,
    last,
    checkpoints,
    length,
    channels,
    states,
    chunk,
    EVERY: tl.constexpr,
    WIDE: tl.constexpr,
    NB: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write the outputs of a chunk, the state after the last, and that before every EVERY steps."""
    row, channel = program_of(channels, BLOCK)
    channel = channel + tl.arange(0, BLOCK)
    n = tl.arange(0, NB)
    index = tl.program_id(1).to(tl.int64)
    first = index * chunk
    steps = tl.minimum(length - first, chunk)
    inside = (channel < channels)[None, :] & (n < states)[:, None]
    a = tl.load(states_at(A, row, first, channel, n), mask=inside, other=0.0).to(WIDE) * LOG2E
    h = tl.load(states_at(start, row, index, channel, n), mask=inside, other=0.0).to(WIDE)
    skip = tl.zeros([BLOCK], WIDE)
    if D is not None:
        skip = tl.load(at(D, row, first, channel), mask=channel < channels, other=0.0).to(WIDE)
    pu = at(u, row, first, channel)
    pd = at(delta, row, first, channel)
    pb = at(B, row, first, n)
    pc = at(C, row, first, n)
    pk = at(keep, row, first, first * 0)
    py = at(y, row, first, channel)
    u_t = rows_of(u, pu, channel, channels, steps, WIDE, T, 1)
    d_t = rows_of(delta, pd, channel, channels, steps, WIDE, T, 1)
    b_t = rows_of(B, pb, n, states, steps, WIDE, T, 1)
    c_t = rows_of(C, pc, n, states, steps, WIDE, T, 1)
    for t in range(0, steps, T):
        left = steps - t
        if checkpoints is not None:  # noqa: SIM102 (known when compiled)
            if t % EVERY == 0:
                place = states_at(checkpoints, row, (first + t) // EVERY, channel, n)
                tl.store(place, h, mask=inside)
        pu = ahead(u, pu, T)
        pd = ahead(delta, pd, T)
        pb = ahead(B, pb, T)
        pc = ahead(C, pc, T)
        k_t = keeps_of(keep, pk, left, T, 1)
        next_u = rows_of(u, pu, channel, channels, left - T, WIDE, T, 1)
        next_d = rows_of(delta, pd, channel, channels, left - T, WIDE, T, 1)
        next_b = rows_of(B, pb, n, states, left - T, WIDE, T, 1)
        next_c = rows_of(C, pc, n, states, left - T, WIDE, T, 1)
        for i in tl.static_range(T):
            h = tl.exp2(d_t[i][None, :] * a) * h
            if keep is not None:
                h = tl.where(k_t[i] != 0, h, 0.0)
            h += (d_t[i] * u_t[i])[None, :] * b_t[i][:, None]
            out = tl.sum(h * c_t[i][:, None], 0) + skip * u_t[i]
            ok = (channel < channels) & (left + 0 * channel > i)
            tl.store(ahead(y, py, i), out.to(y.pointer.dtype.element_ty), mask=ok)
        u_t = next_u
        d_t = next_d
        b_t = next_b
        c_t = next_c
        py = ahead(y, py, T)
        pk = ahead(keep, pk, T)
    final = inside & (first + steps + 0 * n[:, None] == length)
    tl.store(states_at(last, row, index * 0, channel, n), h, mask=final)

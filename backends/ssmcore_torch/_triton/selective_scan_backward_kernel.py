"""The gradients of a selective scan, a chunk of steps at a time, walked from its end.

From a checkpoint the states of the next EVERY steps are found again, T of them held in registers
at a time, and walked back. A program has GROUPS x BLOCK channels: the sums over channels that
dB and dC need stay in registers for all groups, cross the warp once, and go out as partial sums.
What comes back through the states is x_t = exp(delta_t A) G_t, G_t = x_{t+1} + C_t gy_t.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmcore_torch._triton.selective_scan_kernels import (
    LOG2E,
    at,
    keeps_of,
    program_of,
    rows_of,
    states_at,
)

__all__ = ["backward"]

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def advanced(h, a, u_t, d_t, b_t, k_t, keep, T: tl.constexpr):
    """Return the state T steps after ``h``."""
    for i in tl.static_range(T):
        h = tl.exp2(d_t[i][None, :] * a) * h
        if keep is not None:
            h = tl.where(k_t[i] != 0, h, 0.0)
        h += (d_t[i] * u_t[i])[None, :] * b_t[i][:, None]
    return h


@triton.jit
def recomputed(h, a, u_t, d_t, b_t, g_t, k_t, sum_c, keep, T: tl.constexpr):
    """Return the transitions of T steps, what they carry of the state, and gy h added to sum_c."""
    decays = ()
    carried = ()
    sums = ()
    for i in tl.static_range(T):
        decay = tl.exp2(d_t[i][None, :] * a)
        h = decay * h
        if keep is not None:
            h = tl.where(k_t[i] != 0, h, 0.0)
        decays += (decay,)
        carried += (h,)
        h += (d_t[i] * u_t[i])[None, :] * b_t[i][:, None]
        sums += (sum_c[i] + g_t[i][None, :] * h,)
    return decays, carried, sums


@triton.jit
def walked_back(
    x, dA, a, decays, carried, u_t, d_t, b_t, c_t, g_t, k_t, sum_b, keep, T: tl.constexpr
):
    """Return x and dA after T steps back, G delta u added to sum_b, and per step two sums over n.

    All per-step results are in the order of the walk: the last step first.
    """
    sums = ()
    through_b = ()
    through_a = ()
    for j in tl.static_range(T):
        i: tl.constexpr = T - 1 - j
        G = x + c_t[i][:, None] * g_t[i][None, :]
        sums += (sum_b[j] + G * (d_t[i] * u_t[i])[None, :],)
        w = G * carried[i]
        through_b += (tl.sum(G * b_t[i][:, None], 0),)
        through_a += (tl.sum(w * a, 0),)
        dA += w * d_t[i][None, :]
        x = decays[i] * G
        if keep is not None:
            x = tl.where(k_t[i] != 0, x, 0.0)
    return x, dA, sums, through_b, through_a


@triton.jit
def zeros_of(NB: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr, count: tl.constexpr):
    """Return ``count`` tiles of zeros."""
    rows = ()
    for _ in tl.static_range(count):
        rows += (tl.zeros([NB, BLOCK], WIDE),)
    return rows


@triton.jit
def backward(
    u,
    delta,
    A,
    B,
    C,
    D,
    keep,
    checkpoints,
    gy,
    ends,
    du,
    ddelta,
    dA,
    dB,
    dC,
    dD,
    dstart,
    rows,
    length,
    channels,
    states,
    chunk,
    EVERY: tl.constexpr,
    WIDE: tl.constexpr,
    NB: tl.constexpr,
    BLOCK: tl.constexpr,
    GROUPS: tl.constexpr,
    T: tl.constexpr,
):
    """Write the gradients of a chunk, and its partial sums for A, B, C and D."""
    SUBS: tl.constexpr = EVERY // T
    row, base = program_of(channels, BLOCK * GROUPS)
    partial = (tl.program_id(0) % tl.cdiv(channels, BLOCK * GROUPS)).to(tl.int64) * rows + row
    n = tl.arange(0, NB)
    index = tl.program_id(1).to(tl.int64)
    first = index * chunk
    steps = tl.minimum(length - first, chunk)
    a = ()
    x = ()
    skip = ()
    for c in tl.static_range(GROUPS):
        channel = base + c * BLOCK + tl.arange(0, BLOCK)
        inside = (channel < channels)[None, :] & (n < states)[:, None]
        at_a = states_at(A, row, first, channel, n)
        a += (tl.load(at_a, mask=inside, other=0.0).to(WIDE) * LOG2E,)
        x += (tl.load(states_at(ends, row, index, channel, n), mask=inside, other=0.0).to(WIDE),)
        if D is not None:
            at_d = at(D, row, first, channel)
            skip += (tl.load(at_d, mask=channel < channels, other=0.0).to(WIDE),)
        else:
            skip += (tl.zeros([BLOCK], WIDE),)
    sum_a = zeros_of(NB, BLOCK, WIDE, GROUPS)
    sums_d = ()
    for _ in tl.static_range(GROUPS):
        sums_d += (tl.zeros([BLOCK], WIDE),)
    blocks = tl.cdiv(steps, EVERY)
    for block in range(blocks):
        begin = first + (blocks - 1 - block) * EVERY
        heads = ()
        for c in tl.static_range(GROUPS):
            channel = base + c * BLOCK + tl.arange(0, BLOCK)
            inside = (channel < channels)[None, :] & (n < states)[:, None]
            place = states_at(checkpoints, row, begin // EVERY, channel, n)
            h = tl.load(place, mask=inside, other=0.0).to(WIDE)
            heads += (h,)
            for s in tl.static_range(SUBS - 1):
                now = begin + s * T
                left = length - now
                u_t = rows_of(u, at(u, row, now, channel), channel, channels, left, WIDE, T, 1)
                d_t = rows_of(
                    delta, at(delta, row, now, channel), channel, channels, left, WIDE, T, 1
                )
                b_t = rows_of(B, at(B, row, now, n), n, states, left, WIDE, T, 1)
                k_t = keeps_of(keep, at(keep, row, now, now * 0), left, T, 1)
                h = advanced(h, a[c], u_t, d_t, b_t, k_t, keep, T)
                heads += (h,)
        for r in tl.static_range(SUBS):
            s: tl.constexpr = SUBS - 1 - r
            now = begin + s * T
            left = length - now
            b_t = rows_of(B, at(B, row, now, n), n, states, left, WIDE, T, 1)
            c_t = rows_of(C, at(C, row, now, n), n, states, left, WIDE, T, 1)
            k_t = keeps_of(keep, at(keep, row, now, now * 0), left, T, 1)
            sum_b = zeros_of(NB, BLOCK, WIDE, T)
            sum_c = zeros_of(NB, BLOCK, WIDE, T)
            new_x = ()
            new_a = ()
            new_d = ()
            for c in tl.static_range(GROUPS):
                channel = base + c * BLOCK + tl.arange(0, BLOCK)
                u_t = rows_of(u, at(u, row, now, channel), channel, channels, left, WIDE, T, 1)
                d_t = rows_of(
                    delta, at(delta, row, now, channel), channel, channels, left, WIDE, T, 1
                )
                g_t = rows_of(gy, at(gy, row, now, channel), channel, channels, left, WIDE, T, 1)
                decays, carried, sum_c = recomputed(
                    heads[c * SUBS + s], a[c], u_t, d_t, b_t, g_t, k_t, sum_c, keep, T
                )
                x_c, a_c, sum_b, through_b, through_a = walked_back(
                    x[c],
                    sum_a[c],
                    a[c],
                    decays,
                    carried,
                    u_t,
                    d_t,
                    b_t,
                    c_t,
                    g_t,
                    k_t,
                    sum_b,
                    keep,
                    T,
                )
                new_x += (x_c,)
                new_a += (a_c,)
                d_c = sums_d[c]
                for j in tl.static_range(T):
                    i: tl.constexpr = T - 1 - j
                    d_c += g_t[i] * u_t[i]
                    ok = (channel < channels) & (left + 0 * channel > i)
                    to_u = through_b[j] * d_t[i] + skip[c] * g_t[i]
                    to_d = through_b[j] * u_t[i] + through_a[j] * LN2
                    pu = at(du, row, now + i, channel)
                    pd = at(ddelta, row, now + i, channel)
                    tl.store(pu, to_u.to(du.pointer.dtype.element_ty), mask=ok)
                    tl.store(pd, to_d.to(ddelta.pointer.dtype.element_ty), mask=ok)
                new_d += (d_c,)
            x = new_x
            sum_a = new_a
            sums_d = new_d
            for j in tl.static_range(T):
                i: tl.constexpr = T - 1 - j
                ok = (n < states) & (left + 0 * n > i)
                tl.store(at(dB, partial, now + i, n), tl.sum(sum_b[j], 1), mask=ok)
                tl.store(at(dC, partial, now + i, n), tl.sum(sum_c[i], 1), mask=ok)
    for c in tl.static_range(GROUPS):
        channel = base + c * BLOCK + tl.arange(0, BLOCK)
        inside = (channel < channels)[None, :] & (n < states)[:, None]
        tl.store(states_at(dA, row, index, channel, n), sum_a[c], mask=inside)
        tl.store(at(dD, row, index, channel), sums_d[c], mask=channel < channels)
        final = inside & (index + 0 * n[:, None] == 0)
        place = states_at(dstart, row, index * 0, channel, n)
        tl.store(place, x[c].to(dstart.pointer.dtype.element_ty), mask=final)

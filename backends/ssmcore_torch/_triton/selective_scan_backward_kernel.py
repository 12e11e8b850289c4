"""The gradients of a selective scan, a chunk of steps at a time, walked from its end.

From the checkpoint before them the states of T steps are found again, held in registers, and walked
back. A program has some groups of BLOCK channels: the sums over channels that dB and dC need stay
in registers for all groups, cross the warp once, and go out as partial sums.
What comes back through the states is x_t = exp(delta_t A) G_t, G_t = x_{t+1} + C_t gy_t.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ssmcore_torch._triton.access import ahead
from ssmcore_torch._triton.selective_scan_kernels import (
    LOG2E,
    at,
    keeps_of,
    rows_of,
    states_at,
)

__all__ = ["backward"]

LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def advanced(h, a, u, delta, B, keep, row, now, channel, channels, n, states, T: tl.constexpr):
    """Return the state T steps after ``h``, the one before step ``now``."""
    WIDE: tl.constexpr = a.dtype
    u_t = rows_of(u, at(u, row, now, channel), channel, channels, T, WIDE, T, 1)
    d_t = rows_of(delta, at(delta, row, now, channel), channel, channels, T, WIDE, T, 1)
    b_t = rows_of(B, at(B, row, now, n), n, states, T, WIDE, T, 1)
    k_t = keeps_of(keep, at(keep, row, now, now * 0), T + 0 * now, T, 1)
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

    The sums over n are in the order of the walk: of the last step first.
    """
    sums = ()
    through_b = ()
    through_a = ()
    for i in tl.static_range(T - 1, -1, -1):
        G = x + c_t[i][:, None] * g_t[i][None, :]
        sums = (sum_b[i] + G * (d_t[i] * u_t[i])[None, :],) + sums  # noqa: RUF005
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
    through,
    du,
    ddelta,
    dA,
    dB,
    dC,
    dD,
    rows,
    length,
    channels,
    states,
    chunk,
    groups,
    zero,
    EVERY: tl.constexpr,
    WIDE: tl.constexpr,
    NB: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write the gradients of a chunk, and its partial sums for A, B, C and D.

    ``through`` holds what comes back from the next chunk, and in the end what goes on to the one
    before; like ``dA`` and ``dD``, which begin as zeros, it is this program's own memory.
    ``zero`` is 0, and not known to be: else LLVM keeps every pointer of both inner loops in
    registers of its own, and they spill.
    """
    blocks = tl.cdiv(channels, BLOCK * groups)
    row = (tl.program_id(0) // blocks).to(tl.int64)
    block = tl.program_id(0) % blocks
    partial = block.to(tl.int64) * rows + row
    n = tl.arange(0, NB)
    index = tl.program_id(1).to(tl.int64)
    first = index * chunk
    tiles = tl.cdiv(tl.minimum(length - first, chunk), T)
    for tile in range(tiles):
        now = first + (tiles - 1 - tile) * T
        mark = now // EVERY
        left = length - now
        k_t = keeps_of(keep, at(keep, row, now, now * 0), left, T, 1)
        sum_b = zeros_of(NB, BLOCK, WIDE, T)
        sum_c = zeros_of(NB, BLOCK, WIDE, T)
        for group in range(groups):
            channel = ((block * groups + group) ^ zero) * BLOCK + tl.arange(0, BLOCK)
            exists = channel < channels
            inside = exists[None, :] & (n < states)[:, None]
            a = tl.load(states_at(A, row, now, channel, n), mask=inside, other=0.0).to(WIDE)
            a = a * LOG2E
            h = tl.load(states_at(checkpoints, row, mark, channel, n), mask=inside, other=0.0)
            if EVERY > T:
                for earlier in range((now - mark * EVERY) // T):
                    then = mark * EVERY + (earlier ^ zero) * T
                    h = advanced(
                        h, a, u, delta, B, keep, row, then, channel, channels, n, states, T
                    )
            u_t = rows_of(u, at(u, row, now, channel), channel, channels, left, WIDE, T, 1)
            d_t = rows_of(delta, at(delta, row, now, channel), channel, channels, left, WIDE, T, 1)
            g_t = rows_of(gy, at(gy, row, now, channel), channel, channels, left, WIDE, T, 1)
            b_t = rows_of(B, at(B, row, now, n), n, states, left, WIDE, T, 1)
            c_t = rows_of(C, at(C, row, now, n), n, states, left, WIDE, T, 1)
            decays, carried, sum_c = recomputed(h, a, u_t, d_t, b_t, g_t, k_t, sum_c, keep, T)
            at_x = states_at(through, row, index, channel, n)
            at_a = states_at(dA, row, index, channel, n)
            at_d = at(dD, row, index, channel)
            x = tl.load(at_x, mask=inside, other=0.0)
            sum_a = tl.load(at_a, mask=inside, other=0.0)
            sum_d = tl.load(at_d, mask=exists, other=0.0)
            skip = tl.zeros([BLOCK], WIDE)
            if D is not None:
                skip = tl.load(at(D, row, now, channel), mask=exists, other=0.0).to(WIDE)
            x, sum_a, sum_b, through_b, through_a = walked_back(
                x, sum_a, a, decays, carried, u_t, d_t, b_t, c_t, g_t, k_t, sum_b, keep, T
            )
            pu = at(du, row, now, channel)
            pd = at(ddelta, row, now, channel)
            for i in tl.static_range(T):
                sum_d += g_t[i] * u_t[i]
                ok = exists & (left + 0 * channel > i)
                to_u = through_b[T - 1 - i] * d_t[i] + skip * g_t[i]
                to_d = through_b[T - 1 - i] * u_t[i] + through_a[T - 1 - i] * LN2
                tl.store(ahead(du, pu, i), to_u.to(du.pointer.dtype.element_ty), mask=ok)
                tl.store(ahead(ddelta, pd, i), to_d.to(ddelta.pointer.dtype.element_ty), mask=ok)
            tl.store(at_x, x, mask=inside)
            tl.store(at_a, sum_a, mask=inside)
            tl.store(at_d, sum_d, mask=exists)
            tl.debug_barrier()
        pb = at(dB, partial, now, n)
        pc = at(dC, partial, now, n)
        for i in tl.static_range(T):
            ok = (n < states) & (left + 0 * n > i)
            tl.store(ahead(dB, pb, i), tl.sum(sum_b[i], 1), mask=ok)
            tl.store(ahead(dC, pc, i), tl.sum(sum_c[i], 1), mask=ok)

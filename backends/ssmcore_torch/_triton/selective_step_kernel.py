"""One step of a selective scan for some channels of a row; lanes are states."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmcore_torch._triton.selective_scan_kernels import LOG2E, at, program_of

__all__ = ["step"]


@triton.jit
def step(
    u,
    delta,
    A,
    B,
    C,
    D,
    state,
    y,
    after,
    channels,
    states,
    WIDE: tl.constexpr,
    NB: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write y and the state after the step."""
    row, base = program_of(channels, BLOCK)
    channel = base + tl.arange(0, BLOCK)
    n = tl.arange(0, NB)
    inside = (channel < channels)[:, None] & (n < states)[None, :]
    exists = channel < channels
    zero = row * 0
    offset = channel.to(tl.int64)[:, None] * A.lane + n.to(tl.int64)[None, :] * A.inner
    a = tl.load(A.pointer + offset, mask=inside, other=0.0).to(WIDE)
    offset = channel.to(tl.int64)[:, None] * state.lane + n.to(tl.int64)[None, :] * state.inner
    h = tl.load(state.pointer + (row * state.row + offset), mask=inside, other=0.0).to(WIDE)
    d = tl.load(at(delta, row, zero, channel), mask=exists, other=0.0).to(WIDE)
    x = tl.load(at(u, row, zero, channel), mask=exists, other=0.0).to(WIDE)
    b = tl.load(at(B, row, zero, n), mask=n < states, other=0.0).to(WIDE)
    c = tl.load(at(C, row, zero, n), mask=n < states, other=0.0).to(WIDE)
    h = tl.exp2(d[:, None] * (a * LOG2E)) * h + (d * x)[:, None] * b[None, :]
    out = tl.sum(h * c[None, :], 1)
    if D is not None:
        out += tl.load(at(D, zero, zero, channel), mask=exists, other=0.0).to(WIDE) * x
    tl.store(at(y, row, zero, channel), out.to(y.pointer.dtype.element_ty), mask=exists)
    offset = channel.to(tl.int64)[:, None] * after.lane + n.to(tl.int64)[None, :] * after.inner
    place = after.pointer + (row * after.row + offset)
    tl.store(place, h.to(after.pointer.dtype.element_ty), mask=inside)

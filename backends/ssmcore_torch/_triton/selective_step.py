"""One step of a selective scan: the state is read and written once."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from ssmcore_torch._triton.arguments import accumulator, launch, strided
from ssmcore_torch._triton.selective_scan import accumulated
from ssmcore_torch._triton.selective_scan_kernels import at, program_of

__all__ = ["selective_step"]


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
    """Write y and the state after the step, of some channels of a row; lanes are states."""
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
    h = tl.exp2(d[:, None] * (a * 1.4426950408889634)) * h + (d * x)[:, None] * b[None, :]
    out = tl.sum(h * c[None, :], 1)
    if D is not None:
        out += tl.load(at(D, zero, zero, channel), mask=exists, other=0.0).to(WIDE) * x
    tl.store(at(y, row, zero, channel), out.to(y.pointer.dtype.element_ty), mask=exists)
    offset = channel.to(tl.int64)[:, None] * after.lane + n.to(tl.int64)[None, :] * after.inner
    place = after.pointer + (row * after.row + offset)
    tl.store(place, h.to(after.pointer.dtype.element_ty), mask=inside)


def selective_step(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    state: torch.Tensor,
    *,
    out: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return y (R, H) and the state after the step (R, H, N), in ``out`` or a new array.

    u, delta (R, H); A (H, N); B, C (R, N); D (H) or None; state (R, H, N). ``out`` may be state.
    """
    R, H = u.shape
    N = A.shape[1]
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    after = torch.empty((R, H, N), dtype=state.dtype, device=u.device) if out is None else out
    if not u.numel():
        return y, after
    NB = max(triton.next_power_of_2(N), 1)
    BLOCK = min(max(512 // NB, 1), triton.next_power_of_2(H))
    launch(
        step,
        (R * triton.cdiv(H, BLOCK),),
        u.device,
        u=strided(u[:, None]),
        delta=strided(delta[:, None]),
        A=strided(A[None, None]),
        B=strided(B[:, None]),
        C=strided(C[:, None]),
        D=None if D is None else strided(D[None, None]),
        state=strided(state[:, None]),
        y=strided(y[:, None]),
        after=strided(after[:, None]),
        channels=H,
        states=N,
        WIDE=accumulator(accumulated(u.dtype)),
        NB=NB,
        BLOCK=BLOCK,
    )
    return y, after

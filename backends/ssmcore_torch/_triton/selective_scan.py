"""h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t + D u_t, and its gradients.

Real A (H, N), one B and C for all channels. The forward pass leaves the state before every EVERY
steps, from which the backward pass finds the others again. Where there are few channels and many
steps, a first pass gives what each chunk of steps adds, and a linear scan over the chunks the
state that each starts from. float64 is carried in float64, everything else in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import triton

from ssmcore_torch._triton.arguments import (
    MOST_CHUNKS,
    accumulated,
    accumulator,
    launch,
    mask,
    strided,
)
from ssmcore_torch._triton.linear_scan import linear_scan
from ssmcore_torch._triton.selective_scan_backward_kernel import backward
from ssmcore_torch._triton.selective_scan_kernels import ends, forward

__all__ = ["EVERY", "selective_scan", "selective_scan_backward"]

EVERY = 8
"""Steps from one checkpoint to the next."""

PROGRAMS = 2048
"""The backward pass takes more channels a program, up to 8 groups, where so many are left."""

LANES_AND_CHUNKS = 16384
SHORTEST_CHUNK = 256
"""Chunks are as many as make this many channels in all, but none shorter than this many steps."""


def chunk_of(R: int, length: int, H: int) -> int:
    """Return the steps of a program, a multiple of EVERY."""
    chunks = min(max(LANES_AND_CHUNKS // (R * H), 1), MOST_CHUNKS)
    steps = length if chunks == 1 else max(-(-length // chunks), SHORTEST_CHUNK)
    return -(-steps // EVERY) * EVERY


def tile_of(N: int, H: int, dtype: torch.dtype) -> tuple[int, int]:
    """Return the states and the channels of a program: 16 registers of states a thread, or 8."""
    NB = int(triton.next_power_of_2(N))
    room = (128 if dtype is torch.float64 else 512) // NB
    return NB, min(max(room, 1), 32, int(triton.next_power_of_2(H)))


def inputs(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    keep: torch.Tensor | None,
    chunk: int,
) -> dict[str, Any]:
    """Return the arguments that all kernels have."""
    return {
        "u": strided(u),
        "delta": strided(delta),
        "A": strided(A[None, None]),
        "B": strided(B),
        "keep": mask(keep),
        "length": u.shape[1],
        "channels": u.shape[2],
        "states": A.shape[1],
        "chunk": chunk,
        "WIDE": accumulator(accumulated(u.dtype)),
    }


def starts(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    start: torch.Tensor,
    keep: torch.Tensor | None,
    chunk: int,
    pulled: bool,
) -> torch.Tensor:
    """Return the state that each chunk starts from (R, chunks, H, N): from the end if pulled."""
    R, length, H = u.shape
    N = A.shape[1]
    count = triton.cdiv(length, chunk)
    if count == 1:
        return start[:, None]
    WIDE = accumulated(u.dtype)
    end = torch.empty((R, count - 1, H, N), dtype=WIDE, device=u.device)
    total = torch.empty((R, count - 1, H), dtype=WIDE, device=u.device)
    alive = None if keep is None else keep.new_empty((R, count - 1))
    NB, BLOCK = tile_of(N, H, u.dtype)
    launch(
        ends,
        (R * triton.cdiv(H, BLOCK), count - 1),
        u.device,
        **inputs(u, delta, A, B, keep, chunk),
        end=strided(end),
        total=strided(total),
        alive=mask(alive),
        skipped=int(pulled),
        PULLED=pulled,
        NB=NB,
        BLOCK=BLOCK,
        T=4,
    )
    decay = torch.exp(total[..., None] * A.to(WIDE)).flatten(2)
    first = start.to(WIDE).flatten(1)
    states = linear_scan(decay, end.flatten(2), first, alive, reverse=pulled)
    each = [states, first[:, None]] if pulled else [first[:, None], states]
    return torch.cat(each, 1).reshape(R, count, H, N)


def selective_scan(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    start: torch.Tensor,
    keep: torch.Tensor | None = None,
    *,
    checkpoint: bool = False,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return y (R, L, H), the last state (R, H, N), and the checkpoints that gradients start from.

    u, delta (R, L, H); A (H, N); B, C (R, L, N); D (H) or None; start (R, H, N); keep (R|1, L)
    bool, False where the state restarts before the step, or None. y has the dtype of u, states
    that of the sums. ``chunk``: steps of a program, a multiple of EVERY.
    """
    R, length, H = u.shape
    N = A.shape[1]
    WIDE = accumulated(u.dtype)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    last = torch.empty((R, H, N), dtype=WIDE, device=u.device)
    marks = None
    if checkpoint:
        shape = (R, triton.cdiv(length, EVERY), H, N)
        marks = torch.empty(shape, dtype=WIDE, device=u.device)
    if not (u.numel() and N):
        y.copy_(u * 0 if D is None else u * D)
        return y, last.copy_(start), marks
    chunk = chunk or chunk_of(R, length, H)
    NB, BLOCK = tile_of(N, H, u.dtype)
    launch(
        forward,
        (R * triton.cdiv(H, BLOCK), triton.cdiv(length, chunk)),
        u.device,
        **inputs(u, delta, A, B, keep, chunk),
        C=strided(C),
        D=None if D is None else strided(D[None, None]),
        start=strided(starts(u, delta, A, B, start, keep, chunk, pulled=False)),
        y=strided(y),
        last=strided(last[:, None]),
        checkpoints=None if marks is None else strided(marks),
        EVERY=EVERY,
        NB=NB,
        BLOCK=BLOCK,
        T=4,
    )
    return y, last, marks


def selective_scan_backward(
    u: torch.Tensor,
    delta: torch.Tensor,
    A: torch.Tensor,
    B: torch.Tensor,
    C: torch.Tensor,
    D: torch.Tensor | None,
    checkpoints: torch.Tensor,
    gy: torch.Tensor,
    glast: torch.Tensor,
    keep: torch.Tensor | None = None,
    *,
    chunk: int | None = None,
) -> tuple[
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor,
    torch.Tensor | None,
    torch.Tensor,
]:
    """Return (du, ddelta, dA, dB, dC, dD, dstart) for the gradients gy of y and glast of last.

    Every one in the dtype of what it is the gradient of; dstart in that of glast. The sums over
    channels and rows are of partial sums, in a fixed order.
    """
    R, length, H = u.shape
    N = A.shape[1]
    WIDE = accumulated(u.dtype)
    if not (u.numel() and N):
        zeros = [torch.zeros_like(x) for x in (A, B, C)]
        dD = None if D is None else (gy * u).sum((0, 1)).to(D.dtype)
        du = torch.zeros_like(u) if D is None else (gy * D).to(u.dtype)
        return du, torch.zeros_like(delta), zeros[0], zeros[1], zeros[2], dD, glast.clone()
    chunk = chunk or chunk_of(R, length, H)
    count = triton.cdiv(length, chunk)
    NB = triton.next_power_of_2(N)
    double = WIDE is torch.float64
    BLOCK = min(max((64 if double else 128) // NB, 1), triton.next_power_of_2(H))
    groups = min(max(R * H * count // BLOCK // PROGRAMS, 4), 8, triton.cdiv(H, BLOCK))
    blocks = triton.cdiv(H, BLOCK * groups)
    du = torch.empty_like(u, memory_format=torch.contiguous_format)
    ddelta = torch.empty_like(delta, memory_format=torch.contiguous_format)
    dA, dD = (torch.zeros((R, count, *s), dtype=WIDE, device=u.device) for s in ((H, N), (H,)))
    dB, dC = torch.empty((2, blocks * R, length, N), dtype=WIDE, device=u.device)
    through = starts(gy, delta, A, C, glast, keep, chunk, pulled=True)
    through = through.to(WIDE, memory_format=torch.contiguous_format, copy=True)
    launch(
        backward,
        (R * blocks, count),
        u.device,
        **inputs(u, delta, A, B, keep, chunk),
        C=strided(C),
        D=None if D is None else strided(D[None, None]),
        checkpoints=strided(checkpoints),
        gy=strided(gy),
        through=strided(through),
        du=strided(du),
        ddelta=strided(ddelta),
        dA=strided(dA),
        dB=strided(dB),
        dC=strided(dC),
        dD=strided(dD),
        rows=R,
        groups=groups,
        zero=0,
        EVERY=EVERY,
        NB=NB,
        BLOCK=BLOCK,
        T=2 if double else 4,
    )
    dB, dC = (x.unflatten(0, (blocks, R)).sum(0) for x in (dB, dC))
    dA, dD = dA.sum((0, 1)).to(A.dtype), None if D is None else dD.sum((0, 1)).to(D.dtype)
    dstart = through[:, 0].to(glast.dtype).contiguous()
    return du, ddelta, dA, dB.to(B.dtype), dC.to(C.dtype), dD, dstart

"""y_t = bias + sum_k weight_k past_{t+k}, past = (state, u): depthwise, causal, K taps.

A program slides a window of K rows over a chunk of steps: every row is loaded once.
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
    strided,
)
from ssmcore_torch._triton.short_convolution_kernels import backward, forward

__all__ = ["short_convolution", "short_convolution_backward"]

STEPS = 256
"""Steps of a program, at least."""


def _launch(
    kernel: Any,
    u: torch.Tensor,
    weight: torch.Tensor,
    state: torch.Tensor,
    chunks: int,
    chunk: int,
    **more: Any,
) -> None:
    """Run ``kernel`` on ``chunks`` of the time."""
    R, length, H = u.shape
    widest = 512 // accumulated(u.dtype).itemsize  # its window is in registers
    block = min(widest, max(32, int(triton.next_power_of_2(R * H))))
    launch(
        kernel,
        (triton.cdiv(R * H, block), chunks),
        u.device,
        u=strided(u),
        weight=strided(weight[None]),
        state=strided(state),
        length=length,
        lanes=R * H,
        columns=H,
        chunk=chunk,
        TAPS=weight.shape[0],
        WIDE=accumulator(accumulated(u.dtype)),
        BLOCK=block,
        T=4,
        **more,
    )


def _chunk(length: int) -> int:
    return max(STEPS, int(triton.cdiv(length, MOST_CHUNKS)))


def short_convolution(
    u: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    state: torch.Tensor,
    *,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return y (R, L, H) and the next state, the last K - 1 inputs (R, K - 1, H).

    u (R, L, H), weight (K, H), bias (H) or None, state (R, K - 1, H): of real dtypes.
    """
    R, length, H = u.shape
    taps = weight.shape[0]
    chunk = chunk or _chunk(length)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    after = torch.empty((R, taps - 1, H), dtype=u.dtype, device=u.device)
    if after.numel():
        kept = min(length, taps - 1)
        after[:, taps - 1 - kept :] = u[:, length - kept :]
        after[:, : taps - 1 - kept] = state[:, kept:]
    if u.numel():
        _launch(
            forward,
            u,
            weight,
            state,
            triton.cdiv(length, chunk),
            chunk,
            bias=None if bias is None else strided(bias[None, None]),
            y=strided(y),
        )
    return y, after


def short_convolution_backward(
    u: torch.Tensor,
    weight: torch.Tensor,
    state: torch.Tensor,
    gy: torch.Tensor,
    gafter: torch.Tensor,
    *,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (du, dweight, dbias, dstate) for the gradients of y and of the next state.

    Sums over rows and steps are of a partial sum per program, in a fixed order; dbias has the
    dtype of the weight.
    """
    R, length, H = u.shape
    taps = weight.shape[0]
    chunk = chunk or _chunk(length + taps - 1)
    du = torch.empty_like(u, memory_format=torch.contiguous_format)
    dstate = torch.empty_like(state, memory_format=torch.contiguous_format)
    if not R * H:
        return du, torch.zeros_like(weight), weight.new_zeros(H), dstate
    chunks = triton.cdiv(length + taps - 1, chunk)
    wide = accumulated(u.dtype)
    partial = torch.empty((R, chunks, H, taps + 1), dtype=wide, device=u.device)
    _launch(
        backward,
        u,
        weight,
        state,
        chunks,
        chunk,
        gy=strided(gy),
        gafter=strided(gafter),
        du=strided(du),
        dstate=strided(dstate),
        partial=strided(partial),
    )
    sums = partial.sum((0, 1)).to(weight.dtype)
    return du, sums[:, :taps].T.contiguous(), sums[:, taps].contiguous(), dstate

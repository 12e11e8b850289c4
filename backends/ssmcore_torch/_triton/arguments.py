"""How tensors reach the kernels: a pointer with its strides, broadcast axes with stride 0."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import torch
import triton.language as tl

__all__ = [
    "MOST_CHUNKS",
    "Strided",
    "accumulated",
    "accumulator",
    "launch",
    "mask",
    "strided",
    "wide",
]

MOST_CHUNKS = 65535
"""A grid has no more programs along its second axis."""


class Strided(NamedTuple):
    """A tensor as the kernels see it: element (r, t, j, i) is sign^i at pointer + the strides."""

    pointer: torch.Tensor
    row: int
    time: int
    lane: int
    inner: int  # from the real to the imaginary part, or from one state to the next
    sign: int  # -1: the imaginary part is to be negated (a lazily conjugated tensor)


def strided(x: torch.Tensor, reverse: bool = False) -> Strided:
    """Return ``x`` (R, L, P), complex, or real with a fourth axis, walked backwards if asked to."""
    sign = -1 if x.is_conj() else 1
    if x.is_complex():
        x = torch.view_as_real(x.conj() if sign < 0 else x)
    steps = [0 if size == 1 else step for size, step in zip(x.shape, x.stride(), strict=True)]
    row, time, lane, inner = (*steps, 0)[:4]
    if reverse and x.shape[1]:
        return Strided(x[:, -1:], row, -time, lane, inner, sign)
    return Strided(x, row, time, lane, inner, sign)


def mask(keep: torch.Tensor | None, reverse: bool = False) -> Strided | None:
    """Return keep (R|1, L) as bytes with a lane axis."""
    return None if keep is None else strided(keep.view(torch.uint8)[..., None], reverse)


def accumulated(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the sums over real numbers, and of the states of selective scans."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums and states of linear scans are carried in."""
    if dtype.is_complex:
        return torch.complex128
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else torch.float64


def accumulator(dtype: torch.dtype) -> Any:
    """Return ``dtype`` as Triton names it."""
    return tl.float64 if dtype in (torch.float64, torch.complex128) else tl.float32


def launch(kernel: Any, grid: tuple[int, ...], device: torch.device, **arguments: Any) -> None:
    """Run ``kernel`` on ``device``: programs of one warp, multiply-adds fused."""
    on = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
    with on:
        kernel[grid](num_warps=1, enable_fp_fusion=True, **arguments)

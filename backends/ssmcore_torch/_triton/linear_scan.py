"""h_t = a_t h_{t-1} + b_t: serial in time with the states in registers, long ones in two passes.

A program owns some lanes (rows times columns) and a chunk of steps. Where there are few lanes and
many steps, a first pass reduces every chunk to the map x -> decay x + end; these maps are a linear
scan again, over the chunks, and it gives every chunk the state that it starts from.
float32 is carried in float64: the state of a constant input would drift by L / 2 ulp else.
"""

from __future__ import annotations

from typing import Any

import torch
import triton

from ssmcore_torch._triton.arguments import (
    MOST_CHUNKS,
    accumulator,
    launch,
    mask,
    strided,
    wide,
)
from ssmcore_torch._triton.linear_scan_kernels import backward, forward, reduce

__all__ = ["linear_scan", "linear_scan_backward"]

ENOUGH_LANES = 8192
"""So many lanes keep a large GPU's memory busy without cutting time into chunks."""

LANES_AND_CHUNKS = 16384
SHORTEST_CHUNK = 256
"""Else there are chunks for this many lanes in all, but none shorter than this many steps."""


def _chunk(lanes: int, length: int) -> int:
    if lanes >= ENOUGH_LANES:
        return length
    chunks = min(triton.cdiv(LANES_AND_CHUNKS, lanes), MOST_CHUNKS)
    return max(int(triton.cdiv(length, chunks)), SHORTEST_CHUNK)


def _block(lanes: int, dtype: torch.dtype) -> int:
    """Return the lanes of a program: 16 bytes a thread of one warp, once there are enough."""
    widest = 32 if dtype.itemsize > 4 else 128
    return widest if lanes >= 8 * ENOUGH_LANES else 32


def _launch(
    kernel: Any,
    chunks: int,
    chunk: int,
    a: torch.Tensor,
    like: torch.Tensor,
    keep: torch.Tensor | None,
    reverse: bool,
    **more: Any,
) -> None:
    """Run ``kernel`` on ``chunks`` of the time of data in the form of ``like`` (R, L, P).

    The loads of T steps of a program are on their way together.
    """
    columns = like.shape[2]
    lanes = like.shape[0] * columns
    block = _block(lanes, like.dtype)
    launch(
        kernel,
        (triton.cdiv(lanes, block), chunks),
        like.device,
        a=strided(a, reverse),
        keep=mask(keep, reverse),
        lanes=lanes,
        columns=columns,
        chunk=chunk,
        CONSTANT=a.shape[1] == 1,
        COMPLEX=like.is_complex() or like.ndim == 4,
        WIDE=accumulator(wide(like.dtype)),
        BLOCK=block,
        T=min(8, int(triton.next_power_of_2(chunk))),
        **more,
    )


def _paired(x: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Return an empty array of ``shape`` in the wide dtype of ``x``, complex if ``x`` is."""
    dtype = wide(x.dtype)
    if x.ndim == 4:
        dtype = torch.complex128 if dtype is torch.float64 else torch.complex64
    return torch.empty(shape, dtype=dtype, device=x.device)


def _states(
    a: torch.Tensor,
    b: torch.Tensor,
    start: torch.Tensor,
    keep: torch.Tensor | None,
    chunk: int,
    reverse: bool,
    pulled: bool,
) -> torch.Tensor:
    """Return the state at the start of every chunk (R, chunks, P), from the maps of all but one.

    A chunk maps x to a(...a(x) + b...) + b; to a(...a(x + b) + b...) if ``pulled``.
    """
    R, length, P = b.shape[:3]
    count = triton.cdiv(length, chunk)
    if count == 1:
        return start[:, None]
    states = _paired(b, (R, count, P))
    states[:, 0] = torch.complex(start[..., 0], start[..., 1]) if start.ndim == 3 else start
    decay, end = _paired(b, (R, count - 1, P)), _paired(b, (R, count - 1, P))
    alive = None if keep is None else keep.new_empty((R, count - 1))
    _launch(
        reduce,
        count - 1,
        chunk,
        a,
        b,
        keep,
        reverse,
        b=strided(b, reverse),
        decay=strided(decay),
        end=strided(end),
        alive=mask(alive),
        PULLED=pulled,
    )
    _run(decay, end, states[:, 0], alive, states[:, 1:], False, chunk)
    return states


def _run(
    a: torch.Tensor,
    b: torch.Tensor,
    start: torch.Tensor,
    keep: torch.Tensor | None,
    h: torch.Tensor,
    reverse: bool,
    chunk: int | None,
) -> None:
    """Write the scan into ``h``."""
    R, length, P = b.shape[:3]
    chunk = min(length, chunk or _chunk(R * P, length))
    states = _states(a, b, start, keep, chunk, reverse, pulled=False)
    _launch(
        forward,
        states.shape[1],
        chunk,
        a,
        b,
        keep,
        reverse,
        b=strided(b, reverse),
        states=strided(states),
        h=strided(h, reverse),
        length=length,
    )


def linear_scan(
    a: torch.Tensor,
    b: torch.Tensor,
    start: torch.Tensor,
    keep: torch.Tensor | None = None,
    reverse: bool = False,
    *,
    chunk: int | None = None,
) -> torch.Tensor:
    """Return h (R, L, P): h_t = a_t keep_t h_{t-1} + b_t, h_{-1} = start, from the end if reverse.

    b (R, L, P), a (R|1, L|1, P), start (R, P) of one dtype, real, complex or lazily conjugated, or
    all real with a last axis (re, im) of any strides; keep (R|1, L) bool. ``chunk``: see the file.
    """
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    if b.numel():
        _run(a, b, start, keep, h, reverse, chunk)
    return h


def linear_scan_backward(
    a: torch.Tensor,
    h: torch.Tensor,
    g: torch.Tensor,
    start: torch.Tensor,
    keep: torch.Tensor | None = None,
    reverse: bool = False,
    *,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return (da, db, dstart) for the gradient g of h = linear_scan(...).

    db_t = g_t + a_{t+1} keep_{t+1} db_{t+1}, da_t = keep_t db_t h_{t-1}, dstart = a_0 keep_0 db_0.
    Nothing is conjugated here: of complex data pass ``a.conj()``, ``h.conj()``, ``start.conj()``.
    """
    R, length, P = g.shape[:3]
    constant = a.shape[1] == 1
    db = torch.empty_like(g, memory_format=torch.contiguous_format)
    dstart = torch.empty_like(start, memory_format=torch.contiguous_format)
    if not g.numel():
        return torch.zeros_like(a), db, torch.zeros_like(start)
    chunk = min(length, chunk or _chunk(R * P, length))
    states = _states(a, g, torch.zeros_like(start), keep, chunk, not reverse, pulled=True)
    if constant:
        da = _paired(g, (R, states.shape[1], P))
    else:
        da = torch.empty_like(g, memory_format=torch.contiguous_format)
    _launch(
        backward,
        states.shape[1],
        chunk,
        a,
        g,
        keep,
        not reverse,
        h=strided(h, not reverse),
        g=strided(g, not reverse),
        start=strided(start[:, None]),
        states=strided(states),
        da=strided(da, not (reverse or constant)),
        db=strided(db, not reverse),
        dstart=strided(dstart[:, None]),
        length=length,
    )
    return _summed(da, a), db, dstart


def _summed(da: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Return da summed over the axes that ``a`` is broadcast along, in its form."""
    shared = [k for k in (0, 1) if a.shape[k] < da.shape[k]]
    da = da.sum(shared, keepdim=True) if shared else da
    if a.ndim == 4 and da.is_complex():
        da = torch.view_as_real(da)
    return da.to(a.dtype)

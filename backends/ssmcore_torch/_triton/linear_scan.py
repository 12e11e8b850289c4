"""h_t = a_t h_{t-1} + b_t: serial in time with the states in registers, long ones in two passes.

A program owns some lanes (rows times columns) and a chunk of steps. Where there are few lanes and
many steps, a first pass reduces every chunk to the map x -> decay x + end; these maps are a linear
scan again, over the chunks, and it gives every chunk the state that it starts from.
float32 is carried in float64: the state of a constant input would drift by L / 2 ulp else.
"""

from __future__ import annotations

import torch
import triton

from ssmcore_torch._triton.arguments import Strided, accumulator, launch, strided, wide
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
    chunks = min(triton.cdiv(LANES_AND_CHUNKS, lanes), 65535)
    return max(int(triton.cdiv(length, chunks)), SHORTEST_CHUNK)


def _block(lanes: int, dtype: torch.dtype) -> int:
    """Return the lanes of a program: 16 bytes a thread of one warp, once there are enough."""
    widest = 32 if dtype.itemsize > 4 else 128
    return widest if lanes >= 8 * ENOUGH_LANES else 32


def _together(chunk: int) -> int:
    """Return the steps of a program whose loads are on their way together."""
    return min(8, int(triton.next_power_of_2(chunk)))


def _is_complex(x: torch.Tensor) -> bool:
    return x.is_complex() or x.ndim == 4


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
    block = _block(R * P, b.dtype)
    launch(
        reduce,
        (triton.cdiv(R * P, block), count - 1),
        b.device,
        a=strided(a, reverse),
        b=strided(b, reverse),
        keep=_mask(keep, reverse),
        decay=strided(decay),
        end=strided(end),
        alive=_mask(alive),
        lanes=R * P,
        columns=P,
        chunk=chunk,
        PULLED=pulled,
        COMPLEX=_is_complex(b),
        WIDE=accumulator(wide(b.dtype)),
        BLOCK=block,
        T=_together(chunk),
    )
    _run(decay, end, states[:, 0], alive, states[:, 1:], False, chunk)
    return states


def _mask(keep: torch.Tensor | None, reverse: bool = False) -> Strided | None:
    """Return keep (R, L) for the kernels, as bytes with a lane axis."""
    return None if keep is None else strided(keep.view(torch.uint8)[..., None], reverse)


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
    block = _block(R * P, b.dtype)
    launch(
        forward,
        (triton.cdiv(R * P, block), triton.cdiv(length, chunk)),
        b.device,
        a=strided(a, reverse),
        b=strided(b, reverse),
        keep=_mask(keep, reverse),
        states=strided(states),
        h=strided(h, reverse),
        length=length,
        lanes=R * P,
        columns=P,
        chunk=chunk,
        CONSTANT=a.shape[1] == 1,
        COMPLEX=_is_complex(b),
        WIDE=accumulator(wide(b.dtype)),
        BLOCK=block,
        T=_together(chunk),
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
    h = torch.empty_like(b)
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
    block = _block(R * P, g.dtype)
    launch(
        backward,
        (triton.cdiv(R * P, block), triton.cdiv(length, chunk)),
        g.device,
        a=strided(a, not reverse),
        h=strided(h, not reverse),
        g=strided(g, not reverse),
        start=strided(start[:, None]),
        keep=_mask(keep, not reverse),
        states=strided(states),
        da=strided(da, not (reverse or constant)),
        db=strided(db, not reverse),
        dstart=strided(dstart[:, None]),
        length=length,
        lanes=R * P,
        columns=P,
        chunk=chunk,
        CONSTANT=constant,
        COMPLEX=_is_complex(g),
        WIDE=accumulator(wide(g.dtype)),
        BLOCK=block,
        T=_together(chunk),
    )
    return _summed(da, a), db, dstart


def _summed(da: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """Return da summed over the axes that ``a`` is broadcast along, in its form."""
    da = da.sum(1, keepdim=True) if a.shape[1] == 1 else da
    da = da.sum(0, keepdim=True) if a.shape[0] == 1 else da
    if a.ndim == 4 and da.is_complex():
        da = torch.view_as_real(da)
    return da.to(a.dtype)

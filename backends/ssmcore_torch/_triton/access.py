"""What the kernels share: places, loads and stores of real and complex numbers, products."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "ahead",
    "keeps_of",
    "kept",
    "lanes_of",
    "load",
    "place",
    "plus",
    "rows_of",
    "store",
    "times",
]


@triton.jit
def lanes_of(lanes, columns, BLOCK: tl.constexpr):
    """Return row, column and existence of this program's lanes."""
    lane = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return lane // columns, lane % columns, lane < lanes


@triton.jit
def place(x, row, column, time):
    """Return pointers to the elements (row, time, column) of ``x``, which may be None."""
    pointers = column
    if x is not None:
        offset = row.to(tl.int64) * x.row + column.to(tl.int64) * x.lane
        pointers = x.pointer + (offset + time.to(tl.int64) * x.time)
    return pointers


@triton.jit
def ahead(x, pointers, steps):
    """Return the pointers ``steps`` later in time; ``x`` may be None."""
    if x is not None:
        pointers += tl.full((), steps, tl.int64) * x.time
    return pointers


@triton.jit
def load(x, pointers, ok, other, WIDE: tl.constexpr, COMPLEX: tl.constexpr):
    """Return (re, im); of real data the second is the first, and not used."""
    re = tl.load(pointers, mask=ok, other=other).to(WIDE)
    im = re
    if COMPLEX:
        im = tl.load(pointers + x.inner, mask=ok, other=0.0).to(WIDE) * x.sign
    return re, im


@triton.jit
def store(x, pointers, value, ok, COMPLEX: tl.constexpr):
    """Write (re, im)."""
    tl.store(pointers, value[0].to(x.pointer.dtype.element_ty), mask=ok)
    if COMPLEX:
        tl.store(pointers + x.inner, value[1].to(x.pointer.dtype.element_ty), mask=ok)


@triton.jit
def plus(x, y):
    """Return x + y."""
    return x[0] + y[0], x[1] + y[1]


@triton.jit
def times(x, y, COMPLEX: tl.constexpr):
    """Return x y."""
    re = x[0] * y[0]
    im = re
    if COMPLEX:
        re = re - x[1] * y[1]
        im = x[0] * y[1] + x[1] * y[0]
    return re, im


@triton.jit
def rows_of(
    x, pointers, valid, left, other, WIDE: tl.constexpr, COMPLEX: tl.constexpr, T: tl.constexpr
):
    """Return T rows from ``pointers`` on, each (re, im); ``other`` after ``left`` of them."""
    rows = ()
    for i in tl.static_range(T):
        rows += (load(x, ahead(x, pointers, i), valid & (left > i), other, WIDE, COMPLEX),)
    return rows


@triton.jit
def keeps_of(keep, pointers, valid, left, T: tl.constexpr):
    """Return T times whether the state is carried into the step; always, without ``keep``."""
    rows = ()
    for i in tl.static_range(T):
        ok = valid & (left > i)
        if keep is not None:
            ok = tl.load(ahead(keep, pointers, i), mask=ok, other=1) != 0
        rows += (ok,)
    return rows


@triton.jit
def kept(keep, k, x):
    """Return x where k, else zero: selected, so that nothing crosses a restart."""
    re = x[0]
    im = x[1]
    if keep is not None:
        re = tl.where(k, re, 0.0)
        im = tl.where(k, im, 0.0)
    return re, im

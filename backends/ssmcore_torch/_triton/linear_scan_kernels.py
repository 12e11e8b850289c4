"""The three passes over a chunk of a linear scan: its map, its states, its gradients."""

from __future__ import annotations

import triton
import triton.language as tl

from ssmcore_torch._triton.access import (
    ahead,
    keeps_of,
    kept,
    lanes_of,
    load,
    place,
    plus,
    rows_of,
    store,
    times,
)

__all__ = ["backward", "forward", "reduce"]


@triton.jit
def transitions(
    a,
    pointers,
    fixed,
    valid,
    left,
    CONSTANT: tl.constexpr,
    WIDE: tl.constexpr,
    COMPLEX: tl.constexpr,
    T: tl.constexpr,
):
    """Return the transitions of T steps; 1 after ``left`` of them."""
    rows = ()
    if CONSTANT:
        for i in tl.static_range(T):
            ok = valid & (left > i)
            rows += ((tl.where(ok, fixed[0], 1.0), tl.where(ok, fixed[1], 0.0)),)
    else:
        rows = rows_of(a, pointers, valid, left, 1.0, WIDE, COMPLEX, T)
    return rows


@triton.jit
def reduce(
    a,
    b,
    keep,
    decay,
    end,
    alive,
    lanes,
    columns,
    chunk,
    PULLED: tl.constexpr,
    CONSTANT: tl.constexpr,
    COMPLEX: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write the map of a chunk, x -> decay x + end, and whether anything of x is left."""
    row, column, valid = lanes_of(lanes, columns, BLOCK)
    index = tl.program_id(1)
    first = index.to(tl.int64) * chunk
    pa = place(a, row, column, first)
    pb = place(b, row, column, first)
    pk = place(keep, row, column, first)
    fixed = load(a, pa, valid, 1.0, WIDE, COMPLEX)
    product = tl.full([BLOCK], 1.0, WIDE), tl.zeros([BLOCK], WIDE)
    x = tl.zeros([BLOCK], WIDE), tl.zeros([BLOCK], WIDE)
    whole = valid
    for t in range(0, chunk, T):
        left = chunk - t + tl.zeros([BLOCK], tl.int32)
        a_t = transitions(a, pa, fixed, valid, left, CONSTANT, WIDE, COMPLEX, T)
        b_t = rows_of(b, pb, valid, left, 0.0, WIDE, COMPLEX, T)
        k_t = keeps_of(keep, pk, valid, left, T)
        for i in tl.static_range(T):
            product = kept(keep, k_t[i], times(a_t[i], product, COMPLEX))
            if keep is not None:
                whole = whole & (k_t[i] | (left <= i))
            if PULLED:
                x = kept(keep, k_t[i], times(a_t[i], plus(x, b_t[i]), COMPLEX))
            else:
                x = plus(kept(keep, k_t[i], times(a_t[i], x, COMPLEX)), b_t[i])
        pa = ahead(a, pa, T)
        pb = ahead(b, pb, T)
        pk = ahead(keep, pk, T)
    store(decay, place(decay, row, column, index), product, valid, COMPLEX)
    store(end, place(end, row, column, index), x, valid, COMPLEX)
    if keep is not None:
        tl.store(place(alive, row, column, index), whole.to(tl.uint8), mask=valid & (column == 0))


@triton.jit
def forward(
    a,
    b,
    keep,
    states,
    h,
    length,
    lanes,
    columns,
    chunk,
    CONSTANT: tl.constexpr,
    COMPLEX: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write the states h of a chunk, from the state before it."""
    row, column, valid = lanes_of(lanes, columns, BLOCK)
    index = tl.program_id(1)
    first = index.to(tl.int64) * chunk
    steps = tl.minimum(length - first, chunk)
    pa = place(a, row, column, first)
    pb = place(b, row, column, first)
    ph = place(h, row, column, first)
    pk = place(keep, row, column, first)
    x = load(states, place(states, row, column, index), valid, 0.0, WIDE, COMPLEX)
    fixed = load(a, pa, valid, 1.0, WIDE, COMPLEX)
    for t in range(0, steps, T):
        left = steps - t + tl.zeros([BLOCK], tl.int32)
        a_t = transitions(a, pa, fixed, valid, left, CONSTANT, WIDE, COMPLEX, T)
        b_t = rows_of(b, pb, valid, left, 0.0, WIDE, COMPLEX, T)
        k_t = keeps_of(keep, pk, valid, left, T)
        for i in tl.static_range(T):
            x = plus(kept(keep, k_t[i], times(a_t[i], x, COMPLEX)), b_t[i])
            store(h, ahead(h, ph, i), x, valid & (left > i), COMPLEX)
        pa = ahead(a, pa, T)
        pb = ahead(b, pb, T)
        ph = ahead(h, ph, T)
        pk = ahead(keep, pk, T)


@triton.jit
def backward(
    a,
    h,
    g,
    start,
    keep,
    states,
    da,
    db,
    dstart,
    length,
    lanes,
    columns,
    chunk,
    CONSTANT: tl.constexpr,
    COMPLEX: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
    T: tl.constexpr,
):
    """Write the gradients of a chunk, walked from its end: what comes back is x = a keep db."""
    row, column, valid = lanes_of(lanes, columns, BLOCK)
    index = tl.program_id(1)
    first = index.to(tl.int64) * chunk
    steps = tl.minimum(length - first, chunk)
    pa = place(a, row, column, first)
    ph = place(h, row, column, first + 1)
    pg = place(g, row, column, first)
    pb = place(db, row, column, first)
    pd = place(da, row, column, index if CONSTANT else first)
    pk = place(keep, row, column, first)
    x = load(states, place(states, row, column, index), valid, 0.0, WIDE, COMPLEX)
    h0 = load(start, place(start, row, column, index * 0), valid, 0.0, WIDE, COMPLEX)
    fixed = load(a, pa, valid, 1.0, WIDE, COMPLEX)
    total = tl.zeros([BLOCK], WIDE), tl.zeros([BLOCK], WIDE)
    for t in range(0, steps, T):
        left = steps - t + tl.zeros([BLOCK], tl.int32)
        before = length - first - t + tl.zeros([BLOCK], tl.int32)  # steps to the first in time
        a_t = transitions(a, pa, fixed, valid, left, CONSTANT, WIDE, COMPLEX, T)
        h_t = rows_of(h, ph, valid, tl.minimum(left, before - 1), 0.0, WIDE, COMPLEX, T)
        g_t = rows_of(g, pg, valid, left, 0.0, WIDE, COMPLEX, T)
        k_t = keeps_of(keep, pk, valid, left, T)
        for i in tl.static_range(T):
            ok = valid & (left > i)
            last = before == i + 1
            previous = tl.where(last, h0[0], h_t[i][0]), tl.where(last, h0[1], h_t[i][1])
            G = plus(x, g_t[i])
            store(db, ahead(db, pb, i), G, ok, COMPLEX)
            d = kept(keep, k_t[i], times(G, previous, COMPLEX))
            x = kept(keep, k_t[i], times(a_t[i], G, COMPLEX))
            if CONSTANT:
                total = plus(total, kept(da, ok, d))
            else:
                store(da, ahead(da, pd, i), d, ok, COMPLEX)
        pa = ahead(a, pa, T)
        ph = ahead(h, ph, T)
        pg = ahead(g, pg, T)
        pb = ahead(db, pb, T)
        if not CONSTANT:
            pd = ahead(da, pd, T)
        pk = ahead(keep, pk, T)
    if CONSTANT:
        store(da, pd, total, valid, COMPLEX)
    final = valid & (first + steps + tl.zeros([BLOCK], tl.int64) == length)
    store(dstart, place(dstart, row, column, index * 0), x, final, COMPLEX)

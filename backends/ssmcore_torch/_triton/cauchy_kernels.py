"""All numerators over both conjugate poles at once; real arithmetic on contiguous pairs."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["backward", "forward"]


@triton.jit
def reciprocals(zr, zi, cr, ci, xr, xi):
    """Return 1 / (z - c x) and 1 / (z - c conj(x)) as (re, im, re, im)."""
    rr, ii, ri, ir = cr * xr, ci * xi, cr * xi, ci * xr
    dr, di = zr - (rr - ii), zi - (ri + ir)
    er, ei = zr - (rr + ii), zi - (ir - ri)
    d = 1.0 / (dr * dr + di * di)
    e = 1.0 / (er * er + ei * ei)
    return dr * d, -di * d, er * e, -ei * e


@triton.jit
def forward(
    z,
    c,
    x,
    v,
    out,
    nodes,
    poles,
    channels,
    S: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the S sums of a channel at some nodes."""
    node = tl.program_id(0) // channels * BLOCK + tl.arange(0, BLOCK)
    h = (tl.program_id(0) % channels).to(tl.int64)
    ok = node < nodes
    zr = tl.load(z + 2 * node, mask=ok, other=1.0)
    zi = tl.load(z + 2 * node + 1, mask=ok, other=0.0)
    cr = tl.load(c + 2 * node, mask=ok, other=0.0)
    ci = tl.load(c + 2 * node + 1, mask=ok, other=0.0)
    re = ()
    im = ()
    for _ in tl.static_range(S):
        re += (tl.zeros([BLOCK], WIDE),)
        im += (tl.zeros([BLOCK], WIDE),)
    px = x + h * poles * 2
    pv = v + h * poles * 2 * S
    for _ in range(poles):
        a, b, e, f = reciprocals(zr, zi, cr, ci, tl.load(px), tl.load(px + 1))
        new_re = ()
        new_im = ()
        for s in tl.static_range(S):
            p = tl.load(pv + 2 * s)
            q = tl.load(pv + 2 * s + 1)
            new_re += (re[s] + p * (a + e) + q * (f - b),)
            new_im += (im[s] + p * (b + f) + q * (a - e),)
        re = new_re
        im = new_im
        px += 2
        pv += 2 * S
    for s in tl.static_range(S):
        place = out + ((s * channels + h) * nodes + node) * 2
        tl.store(place, re[s], mask=ok)
        tl.store(place + 1, im[s], mask=ok)


@triton.jit
def backward(
    z,
    c,
    x,
    v,
    g,
    dx,
    dv,
    nodes,
    poles,
    channels,
    S: tl.constexpr,
    WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Write the gradients of a pole and its S numerators, summed over all nodes."""
    n = (tl.program_id(0) // channels).to(tl.int64)
    h = (tl.program_id(0) % channels).to(tl.int64)
    px = x + (h * poles + n) * 2
    pv = v + (h * poles + n) * 2 * S
    xr = tl.load(px)
    xi = tl.load(px + 1)
    dp = ()
    dq = ()
    for _ in tl.static_range(S):
        dp += (tl.zeros([BLOCK], WIDE),)
        dq += (tl.zeros([BLOCK], WIDE),)
    dxr = tl.zeros([BLOCK], WIDE)
    dxi = tl.zeros([BLOCK], WIDE)
    for begin in range(0, nodes, BLOCK):
        node = begin + tl.arange(0, BLOCK)
        ok = node < nodes
        zr = tl.load(z + 2 * node, mask=ok, other=1.0)
        zi = tl.load(z + 2 * node + 1, mask=ok, other=0.0)
        cr = tl.load(c + 2 * node, mask=ok, other=0.0)
        ci = tl.load(c + 2 * node + 1, mask=ok, other=0.0)
        a, b, e, f = reciprocals(zr, zi, cr, ci, xr, xi)
        ga = tl.zeros([BLOCK], WIDE)
        gb = tl.zeros([BLOCK], WIDE)
        ge = tl.zeros([BLOCK], WIDE)
        gf = tl.zeros([BLOCK], WIDE)
        new_p = ()
        new_q = ()
        for s in tl.static_range(S):
            place = g + ((s * channels + h) * nodes + node) * 2
            gr = tl.load(place, mask=ok, other=0.0)
            gi = tl.load(place + 1, mask=ok, other=0.0)
            p = tl.load(pv + 2 * s)
            q = tl.load(pv + 2 * s + 1)
            new_p += (dp[s] + gr * (a + e) + gi * (b + f),)
            new_q += (dq[s] + gr * (f - b) + gi * (a - e),)
            ga += gr * p + gi * q
            gb += gi * p - gr * q
            ge += gr * p - gi * q
            gf += gi * p + gr * q
        dp = new_p
        dq = new_q
        # conj(c / (z - c x)^2) (ga + i gb), and the conjugate of the like for conj(x)
        wr, wi = a * a - b * b, 2.0 * a * b
        ur, ui = cr * wr - ci * wi, -(cr * wi + ci * wr)
        dxr += ur * ga - ui * gb
        dxi += ur * gb + ui * ga
        wr, wi = e * e - f * f, 2.0 * e * f
        ur, ui = cr * wr - ci * wi, -(cr * wi + ci * wr)
        dxr += ur * ge - ui * gf
        dxi -= ur * gf + ui * ge
    place = (h * poles + n) * 2
    tl.store(dx + place, tl.sum(dxr, 0))
    tl.store(dx + place + 1, tl.sum(dxi, 0))
    for s in tl.static_range(S):
        tl.store(dv + place * S + 2 * s, tl.sum(dp[s], 0))
        tl.store(dv + place * S + 2 * s + 1, tl.sum(dq[s], 0))

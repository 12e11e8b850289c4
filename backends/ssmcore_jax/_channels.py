"""``diagonal_scan`` of separate channels on JAX: T steps at once, by products of matrices.

x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) + D u_t for a, B, C (H, N), D (H,). With x before T steps
and k_m = Re(sum_n C a^m B), to k_0 added D:

    x' = a^T x + sum_j a^(T-1-j) B u_j,    y_i = Re(C a^(i+1) x) + sum_(j <= i) k_(i-j) u_j

The sums are products with tables of each channel, complex numbers as pairs of blocks (re, im); only
a^T x goes from one T to the next, by ``linear_scan``. What is not a number spoils the outputs of
all T steps that it stands in.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssmcore_jax._chunks import Chunk, Inputs
from ssmcore_jax._scan import scan_with_last

__all__ = ["BLOCK", "channels"]

T = 32
"""Steps taken at once."""
BLOCK = 1 << 10
"""Steps whose states are held together."""
SHARES, FEWEST = 8, 32
"""Groups of channels at most, and channels of a group at least: on the CPU XLA runs products as
small as these on one core, but groups beside each other."""
_matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)


class _Tables(NamedTuple):
    """Of H channels with M = N numbers a state, or 2 N where it is complex."""

    taps: Any  # (H, T, T): from inputs to outputs
    into: Any  # (H, T, M): from inputs to the state after them
    out: Any  # (H, M, T): from the state before them to outputs
    power: Any  # (H * N,): a^T


def channels(a: Any, B: Any, C: Any, D: Any | None, steps: Chunk, reverse: bool) -> Chunk:
    """Return the chunk of H systems; what is too short for it, or of open length, is left
    to ``steps``."""
    H = a.shape[0]
    most = SHARES if jax.default_backend() == "cpu" else 1
    count = max(1, min(most, H // FEWEST))
    edges = [H * k // count for k in range(count + 1)]
    parts = [slice(*edge) for edge in itertools.pairwise(edges)]
    through = jnp.zeros((H,), a.real.dtype) if D is None else D
    tables = [_tables(a[part], B[part], C[part], through[part]) for part in parts]

    def whole(h: Any, u: Any) -> tuple[Any, Any]:
        done = [_run(w, h[part], u[:, part]) for w, part in zip(tables, parts, strict=True)]
        last, y = zip(*done, strict=True)
        return jnp.concatenate(last), jnp.concatenate(y, axis=1)

    def chunk(h: Any, now: Inputs) -> tuple[Any, Any]:
        u = now["u"]
        cut = u.shape[0] // T * T
        if not isinstance(cut, int) or not cut:
            return steps(h, now)
        rest = u.shape[0] - cut
        many, few = (u[rest:], u[:rest]) if reverse else (u[:cut], u[cut:])
        h, y = whole(h, jnp.flip(many, 0) if reverse else many)
        y = jnp.flip(y, 0) if reverse else y
        if not rest:
            return h, y
        h, late = steps(h, {"u": few})
        return h, jnp.concatenate((late, y) if reverse else (y, late))

    return chunk


def _tables(a: Any, B: Any, C: Any, D: Any) -> _Tables:
    """The powers are made by a loop: XLA would form B and C anew for each of their products."""
    H, N = a.shape
    flat = jnp.reshape(a, (H * N,))
    first = jnp.reshape(jnp.stack((B, a * C, a)), (3, 1, H * N))
    b = jnp.concatenate((first, jnp.zeros((3, T - 1, H * N), a.dtype)), axis=1)
    x, last = scan_with_last(flat, b, None, reset=None, reverse=False)
    x = jnp.reshape(x, (3, T, H, N))
    B_m, C_m = jnp.moveaxis(x[0], 0, 1), jnp.moveaxis(x[1], 0, 2)  # a^m B, a^(m+1) C
    if jnp.iscomplexobj(a):
        B_m = jnp.concatenate((B_m.real, B_m.imag), axis=2)
        C_m = jnp.concatenate((C_m.real, -C_m.imag), axis=1)
        C = jnp.concatenate((C.real, -C.imag), axis=1)
    k = _matmul(B_m, C[..., None])[..., 0]
    k = jnp.concatenate((k[:, :1] + D[:, None], k[:, 1:]), axis=1)
    lag = np.arange(T) - np.arange(T)[:, None]
    taps = jnp.where(lag >= 0, k[:, np.maximum(lag, 0)], 0)
    return _Tables(taps, jnp.flip(B_m, 1), C_m, last[2])


def _run(w: _Tables, h: Any, u: Any) -> tuple[Any, Any]:
    """Return the state (H, N) after u (S, H) and the outputs, S a multiple of T."""
    S, (H, N) = u.shape[0], h.shape
    two = jnp.iscomplexobj(h)
    v = jnp.transpose(jnp.reshape(u, (S // T, T, H)), (2, 0, 1))
    added = jnp.swapaxes(_matmul(v, w.into), 0, 1)
    added = lax.complex(added[..., :N], added[..., N:]) if two else added
    start = jnp.reshape(h, (1, H * N))
    x, last = scan_with_last(
        w.power, jnp.reshape(added, (S // T, H * N)), start[0], reset=None, reverse=False
    )
    x = jnp.reshape(jnp.concatenate((start, x[:-1])), (S // T, H, N))
    x = jnp.concatenate((x.real, x.imag), axis=-1) if two else x
    y = _matmul(v, w.taps) + _matmul(jnp.swapaxes(x, 0, 1), w.out)
    return jnp.reshape(last, h.shape), jnp.reshape(jnp.transpose(y, (1, 2, 0)), (S, H))

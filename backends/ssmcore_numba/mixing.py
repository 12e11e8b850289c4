"""``diagonal_scan`` of one system that mixes all channels, on the CPU, a chunk at a time.

x_t = a x_{t-1} + B u_t, y_t = Re(C x_t) + D u_t for a (P,), B (P, H), C (H, P), D (H,),
u (R, L, H), state (R, P). B u and C x are products of real matrices, in which re and im of a state
are neighbours, so that one is the other's memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ssmcore_numba.linear import states, widest

__all__ = ["diagonal_scan"]

CHUNK = 1 << 18
"""Numbers in all states of a chunk: few enough to stay in the cache between two products."""


def diagonal_scan(
    a: Any,
    B: Any,
    C: Any,
    D: Any | None,
    u: Any,
    state: Any,
    keep: Any | None,
    *,
    reverse: bool,
    threads: int,
) -> tuple[Any, Any]:
    """Return outputs y (R, L, H) and the last state (R, P)."""
    rows, length, _ = u.shape
    into = _interleaved(B.T, 1.0)
    out = np.ascontiguousarray(_interleaved(C, -1.0).T)
    carried = state.astype(widest(a.dtype), order="C")
    y = np.empty_like(u, order="C")
    steps = max(16, CHUNK // max(1, rows * a.shape[0]))
    cuts = [slice(t, min(t + steps, length)) for t in range(0, length, steps)]
    for cut in reversed(cuts) if reverse else cuts:
        drive = (u[:, cut] @ into).view(a.dtype)
        kept = None if keep is None else keep[:, cut]
        x = states(a[None, None, :], drive, carried, kept, reverse, threads)
        np.matmul(x.view(u.dtype), out, out=y[:, cut])
        if D is not None:
            y[:, cut] += D * u[:, cut]
    return y, carried.astype(a.dtype)


def _interleaved(z: Any, sign: float) -> Any:
    """Return (n, P) as real (n, 2 P): re, sign im, re, sign im, ...; real input as it is."""
    if not np.iscomplexobj(z):
        return np.ascontiguousarray(z)
    pairs = np.stack((z.real, z.dtype.type(sign).real * z.imag), axis=-1)
    return pairs.reshape(z.shape[0], -1)

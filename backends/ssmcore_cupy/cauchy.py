"""``dplr_kernel`` on CuPy: Cauchy sums and the low rank in one kernel, memory linear in L."""

from __future__ import annotations

from typing import Any

import numpy as np
from ssmcore_cuda.source import Source

from ssmcore import arrays
from ssmcore.primitives import REFERENCES
from ssmcore.primitives import _generating_function as generating
from ssmcore_cupy.launch import Launch, strided
from ssmcore_cupy.rows import real_name

__all__ = ["dplr_kernel"]

THREADS = 128
NEAR = 32
MOST_RANK = 3
"""(rank + 1)^2 complex sums of one thread are in registers."""


def dplr_kernel(launch: Launch, dt: Any, Lambda: Any, P: Any, B: Any, C: Any, length: int) -> Any:
    """See ssmcore.dplr_kernel."""
    if length == 0 or 0 in Lambda.shape or P.shape[0] > MOST_RANK:
        return REFERENCES["dplr_kernel"](dt, Lambda, P, B, C, length)
    xp = arrays.namespace(dt, Lambda, P, B, C)
    one, half = generating.nodes(dt, length)
    C_tilde = generating.truncated_output(dt, Lambda, P, C, length)
    left = xp.concat((C_tilde[None, ...], arrays.conj(P)), axis=0)
    right = dt[:, None] * xp.concat((B[None, ...], P), axis=0)
    pairs = xp.permute_dims(left[:, None, ...] * right[None, ...], (2, 3, 0, 1))
    K_hat = _generating_function(launch, one, half, dt[:, None] * Lambda, pairs)
    scale = arrays.like(dt, np.exp(generating.RADIUS * np.arange(length) / length))
    hermitian = generating.hermitian(K_hat, length)
    return xp.matrix_transpose(scale * xp.fft.irfft(hermitian, n=length, axis=-1))


def _generating_function(launch: Launch, one: Any, half: Any, poles: Any, pairs: Any) -> Any:
    """Return (H, F) at nodes (F), of poles (H, N) and pairs (H, N, rank + 1, rank + 1)."""
    xp = arrays.namespace(one)
    (systems, states), nodes = poles.shape, one.shape[0]
    out = xp.empty((systems, nodes), dtype=poles.dtype, device=arrays.device(poles))
    arguments = (
        *strided(one, 1),
        *strided(half, 1),
        *strided(poles, 2),
        *strided(pairs, 4),
        out,
        np.int64(nodes),
        np.int64(states),
    )
    constants: dict[str, str | int] = {
        "REAL": real_name(poles),
        "RANK": pairs.shape[-1] - 1,
        "THREADS": THREADS,
        "NEAR": NEAR,
    }
    source = Source("cauchy.cu", tuple(constants.items()))
    blocks = systems * -(-nodes // THREADS)
    launch(source, "cauchy", blocks, THREADS, arguments)
    return out

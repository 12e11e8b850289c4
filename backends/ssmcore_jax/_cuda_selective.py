"""The forward ``selective_scan`` on NVIDIA GPUs by CUDA C: one primitive, one kernel.

Values run as the kernel where ``_cuda`` lets a program have kernels. Derivatives are those of the
chunks of ``_selective``, which then compute the values too.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from ssmcore_cuda import linear, selective
from ssmcore_cuda.source import Source

from ssmcore_jax import _cuda

__all__ = ["primitive", "right", "scan"]


def scan(u: Any, delta: Any, A: Any, B: Any, C: Any, start: Any, *reset: Any) -> tuple[Any, Any]:
    """Return y (R, L, H) without D u, and the last states (R, H, N).

    u, delta (R, L, H), A (H, N), B, C (R, L, N), start (R, H, N), all real; reset (R, L).
    """
    R, L, H = u.shape
    N = A.shape[1]
    chosen = selective.layout(R * H, L, N, u.dtype.itemsize)
    count, segment = selective.cut(chosen, L)
    mask = reset[0] if reset else np.zeros((1, 1), bool)
    sizes = np.asarray([L, H, count, segment], np.int32)
    blocks = R * -(-H * chosen.lanes // selective.THREADS) * count
    constants = selective.constants(chosen, u.dtype, N, resets=bool(reset))

    def run(reduce: bool, after: Any, shapes: Any) -> Any:
        flags = (("REDUCE", int(reduce)), ("PACKED", 1))
        source = Source("selective_scan.cu", (*constants, *flags))
        given = u, delta, A, B, C, mask, start, after, sizes
        kernel = linear.Launch(source, blocks, selective.THREADS)
        return _cuda.launch("selective_scan", kernel, given, shapes)

    with jax.enable_x64(True):
        after = np.zeros((1, 1, 1))
        if count > 1:
            wide = (R, count, H * N), np.dtype(np.float64)
            a, ends, cut = run(True, after, (wide, wide, ((R, count), np.dtype(bool))))
            before = jnp.reshape(start, (R, 1, H * N)).astype(np.float64)
            keep = (~cut[..., None],) if reset else ()
            after, _ = _cuda.scan(a, ends, before, *keep, reverse=False, after=False)
        y, last = run(False, after, ((u.shape, u.dtype), (start.shape, u.dtype)))
        return y, last


def primitive(portable: Any) -> Any:
    """Return the scan as one primitive that has the rules of ``portable``, its twin in JAX."""
    made: Any = Primitive("ssmcore_selective_scan")
    made.multiple_results = True

    def shapes(u: Any, *given: Any) -> list[Any]:
        return [u.update(weak_type=False), given[4].update(weak_type=False)]

    def jvp(primals: Any, tangents: Any) -> Any:
        moved = [i for i, dx in enumerate(tangents) if type(dx) is not ad.Zero and i < 6]

        def partly(*some: Any) -> Any:
            given = list(primals)
            for i, x in zip(moved, some, strict=True):
                given[i] = x
            return portable(*given)

        out, dout = jax.jvp(partly, [primals[i] for i in moved], [tangents[i] for i in moved])
        return list(out), list(dout)

    def batch(given: Any, axes: Any) -> Any:
        """Rows in front of rows; a batch of A has no kernel."""
        if axes[2] is not None:
            return list(jax.vmap(portable, in_axes=tuple(axes))(*given)), [0, 0]
        count = next(x.shape[k] for x, k in zip(given, axes, strict=True) if k is not None)
        rows = next(n for i, n in enumerate(given[0].shape) if i != axes[0])

        def flat(i: int) -> Any:
            x, k = given[i], axes[i]
            if i == 2:
                return x
            x = x[None] if k is None else jnp.moveaxis(x, k, 0)
            return jnp.reshape(jnp.broadcast_to(x, (count, *x.shape[1:])), (-1, *x.shape[2:]))

        out = made.bind(*map(flat, range(len(given))))
        return [jnp.reshape(x, (count, rows, *x.shape[1:])) for x in out], [0, 0]

    made.def_impl(functools.partial(_apply, made))
    made.def_abstract_eval(shapes)
    ad.primitive_jvps[made] = jvp
    batching.primitive_batchers[made] = batch
    rule = mlir.lower_fun(portable, multiple_results=True)
    mlir.register_lowering(made, rule)
    mlir.register_lowering(made, _cuda.lowering(rule, scan), platform="cuda")
    return made


@functools.partial(jax.jit, static_argnums=0)
def _apply(made: Any, *given: Any) -> Any:
    return made.bind(*given)


def right() -> bool:
    """Whether a scan, cut into segments, agrees with a loop."""
    rng, L = np.random.default_rng(0), 4 * selective.SHORTEST + 5
    u, delta, B, C = rng.uniform(-1, 1, (4, 2, L, 5)).astype(np.float32)
    delta, A = np.abs(delta) / 8, -np.exp(B[0, :5])
    start, reset = C[:, :5], rng.random((2, L)) < 0.01
    h, y = start.astype(np.float64), np.empty((2, L, 5))
    for t in range(L):
        step = delta[:, t, :, None].astype(np.float64)
        h = np.where(reset[:, t, None, None], 0, h)
        h = np.exp(step * A) * h + step * B[:, t, None, :] * u[:, t, :, None]
        y[:, t] = np.sum(C[:, t, None, :] * h, axis=-1)
    given = (jax.device_put(x, _cuda.devices()[0]) for x in (u, delta, A, B, C, start, reset))
    allowed = 16 * float(np.finfo(np.float32).eps) * max(np.abs(y).max(), np.abs(h).max())
    return all(
        bool(np.all(np.abs(np.asarray(x) - exact) <= allowed))
        for x, exact in zip(jax.jit(scan)(*given), (y, h), strict=True)
    )

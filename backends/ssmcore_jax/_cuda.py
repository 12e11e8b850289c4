"""Scans on NVIDIA GPUs by CUDA C, which XLA launches: its PTX custom call.

The kernels of ``ssmcore_cuda`` are compiled to PTX by NVRTC, and the PTX stands in the program as
the configuration of a call that XLA itself carries out. That call is no public interface of XLA,
so that nothing is taken for granted: it is used where SSMCORE_JAX_PTX=1 asks for it, and where
scans of several kinds, executed once on a device of this process, were right. Everything else runs
as the loops of ``_scan``.
"""

from __future__ import annotations

import concurrent.futures
import functools
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import mlir
from ssmcore_cuda import linear, nvrtc

from ssmcore.backend import native
from ssmcore.errors import check_choice

__all__ = ["Finding", "devices", "finding", "launch", "lowering", "scan"]

TARGET = "__gpu$xla.gpu.ptx"
VARIABLE = "SSMCORE_JAX_PTX"
KINDS = ("float32", "float64", "complex64", "complex128")
LARGEST = 2**31 - 1


class Finding(NamedTuple):
    """Whether this process uses the kernels, and why not."""

    used: bool
    reason: str


def lowering(portable: Any, kernels: Any) -> Any:
    """Return the rule that lowers a primitive for CUDA: as ``kernels``, else by ``portable``."""
    by_kernels = mlir.lower_fun(kernels, multiple_results=True)

    def rule(ctx: Any, *given: Any, **options: Any) -> Any:
        if _fits(ctx) and finding().used:
            try:
                return by_kernels(ctx, *given, **options)
            except nvrtc.CompileError:  # raised before anything is lowered
                pass
        return portable(ctx, *given, **options)

    return rule


def _fits(ctx: Any) -> bool:
    """Whether this program may contain kernels.

    It runs on one device, as XLA would gather what is spread to hand it to a call; it is not
    exported, as the PTX is for the devices here; and all sizes are known.
    """
    module, b = ctx.module_context, ctx.avals_in[1]
    return (
        getattr(module.axis_context, "num_devices", None) == 1
        and getattr(module.lowering_parameters, "for_export", None) is False
        and str(b.dtype) in KINDS
        and all(isinstance(n, int) for x in ctx.avals_in for n in x.shape)
        and 0 < math.prod(b.shape) <= LARGEST
    )


# ------------------------------------------------------------------------------------- the scan


def scan(a: Any, b: Any, start: Any, *keep: Any, reverse: bool, after: bool) -> tuple[Any, Any]:
    """Return all h and the last x, as the primitive of ``_scan`` has them."""
    *lead, L, P = b.shape
    form = (math.prod(lead), L, P)
    with jax.enable_x64(True):
        rows = _Rows(
            _rows(a.astype(b.dtype), lead, (a.shape[-2], P)),
            jnp.reshape(b, form),
            jnp.reshape(start, (form[0], P)),
            *(_rows(k, lead, (L, 1))[..., 0] for k in keep),
        )
        h = jnp.reshape(_states(rows, *linear.cut(form), reverse, after), b.shape)
        last = h[..., :1, :] if reverse else h[..., -1:, :]
        if after:
            final = 0 if reverse else L - 1
            last = last * (a if a.shape[-2] == 1 else a[..., final : final + 1, :])
            for k in keep:
                last = jnp.where(k[..., final : final + 1, :], last, jnp.zeros_like(last))
        return h, last.astype(b.dtype)


class _Rows(NamedTuple):
    """a (R | 1, L | 1, P), b (R, L, P), start (R, P), keep (R | 1, L) or None."""

    a: Any
    b: Any
    start: Any
    keep: Any = None


def _rows(x: Any, lead: Sequence[int], tail: tuple[int, int]) -> Any:
    """Return ``x`` as (R, *tail), or as (1, *tail) where it is the same for all rows."""
    if math.prod(x.shape[:-2]) == 1:
        return jnp.broadcast_to(jnp.reshape(x, (1, *x.shape[-2:])), (1, *tail))
    return jnp.reshape(jnp.broadcast_to(x, (*lead, *tail)), (math.prod(lead), *tail))


def _states(rows: _Rows, count: int, segment: int, reverse: bool, after: bool) -> Any:
    """Return all h (R, L, P), the time cut into ``count`` segments."""
    b, wide = rows.b, jnp.promote_types(rows.b.dtype, "float64")
    R, L, P = b.shape
    keep = np.ones((1, 1), bool) if rows.keep is None else rows.keep
    sizes = np.asarray([R, L, P, count, segment, rows.a.shape[0], keep.shape[0], reverse], np.int32)
    chosen = linear.launch(
        b.shape,
        b.dtype,
        count,
        varies=rows.a.shape[1] > 1,
        resets=rows.keep is not None,
        shifted=after,
        packed=True,
    )
    before = np.zeros((1, 1, 1), wide)
    if count > 1:
        shapes = ((R, count, P), wide), ((R, count, P), wide), ((R, count), np.dtype(bool))
        a, ends, kept = launch("linear_reduce", chosen, (rows.a, b, keep, sizes), shapes)
        maps = _Rows(a, ends, rows.start.astype(wide), None if rows.keep is None else kept)
        before = _states(maps, 1, count, reverse=False, after=False)
    given = rows.a, b, keep, rows.start, before, sizes
    return launch("linear_scan", chosen, given, ((b.shape, b.dtype),))[0]


def launch(
    name: str,
    chosen: linear.Launch,
    given: tuple[Any, ...],
    shapes: tuple[tuple[tuple[int, ...], Any], ...],
) -> Any:
    """Return what the kernel writes, of ``shapes`` and dtypes."""
    outputs: Any = [jax.ShapeDtypeStruct(*kind) for kind in shapes]  # type: ignore[no-untyped-call]
    call: Any = jax.ffi.ffi_call(TARGET, outputs)
    grid = {"grid_x": chosen.blocks, "grid_y": 1, "grid_z": 1}
    block = {"block_x": chosen.threads, "block_y": 1, "block_z": 1}
    numbers = grid | block | {"shared_mem_bytes": 0}
    return call(
        *given,
        name=name,
        kernel_type="ptx",
        kernel_data=nvrtc.ptx(chosen.source, _capability()),
        output_indices=tuple(range(len(given), len(given) + len(outputs))),
        **{key: np.int32(number) for key, number in numbers.items()},
    )


# ------------------------------------------------------------------------------- what is usable


def devices() -> list[Any]:
    """Return the CUDA devices of this process; none without a GPU or a JAX that knows them."""
    try:
        return list(jax.local_devices(backend="cuda"))
    except RuntimeError:
        return []


def _capability() -> int:
    """Return the least compute capability of all devices, 90 for 9.0."""
    found = [device.compute_capability.split(".") for device in devices()]
    return min(10 * int(major) + int(minor) for major, minor in found)


@functools.cache
def finding() -> Finding:
    """Return whether the kernels are used, found out by executing them, once a process."""
    wanted = os.environ.get(VARIABLE, "0")
    check_choice("ssmcore", f"value of {VARIABLE}", wanted, ("0", "1"))
    if wanted == "0" or not native():
        return Finding(False, f"{VARIABLE}=1 tries kernels in CUDA C")
    if not devices():
        return Finding(False, "there is no CUDA device")
    if not hasattr(jax, "enable_x64"):
        return Finding(False, f"JAX {jax.__version__} is too old")
    # In a thread of its own: this one may be tracing or lowering.
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        problem = pool.submit(_problem).result()
    return Finding(problem is None, problem or "executed and found right")


def _problem() -> str | None:
    """Execute scans of several kinds; return what is wrong with them, or None."""
    from ssmcore_jax import _cuda_selective

    kinds = (("float32", False, True), ("complex64", True, False), ("float32", False, False))
    try:
        right = [_right(*kind, twice=i == 2) for i, kind in enumerate(kinds)]
        right.append(_cuda_selective.right())
    except Exception as error:  # whatever XLA or the driver raise
        return f"{type(error).__name__}: {str(error).strip():.200}".splitlines()[0]
    return None if all(right) else "a scan that was executed to try them was wrong"


def _right(dtype: str, reverse: bool, after: bool, *, twice: bool) -> bool:
    """Whether a scan, cut into segments, agrees with a loop; ``twice``: a and b are one array."""
    rng = np.random.default_rng(0)
    parts = rng.uniform(-0.6, 0.6, (2, 2, 2, 2 * linear.SHORTEST + 70, 33))
    a, b = ((parts[0] + 1j * parts[1]) if dtype == "complex64" else parts[0]).astype(dtype)
    b = a if twice else b
    start, keep = b[:, :1], rng.random((*a.shape[:2], 1)) < 0.99
    first, *rest = (jax.device_put(x, devices()[0]) for x in (a, b, start, keep))
    given = (first, first, *rest[1:]) if twice else (first, *rest)
    run = jax.jit(functools.partial(scan, reverse=reverse, after=after))
    expected = _loop(a, b, start, keep, reverse, after)
    allowed = 4 * float(np.finfo(np.float32).eps) * float(np.abs(expected[0]).max())
    return all(
        bool(np.all(np.abs(np.asarray(x) - y) <= allowed))
        for x, y in zip(run(*given), expected, strict=True)
    )


def _loop(a: Any, b: Any, start: Any, keep: Any, reverse: bool, after: bool) -> tuple[Any, Any]:
    """Return all h and the last x, one step after the other, in double precision."""
    h = b.astype(np.result_type(b.dtype, np.float64))
    x, steps = start[:, 0].astype(h.dtype), range(h.shape[1])
    for t in reversed(steps) if reverse else steps:
        if after:
            h[:, t] += x
            x = np.where(keep[:, t], a[:, t] * h[:, t], 0)
        else:
            h[:, t] += np.where(keep[:, t], a[:, t] * x, 0)
            x = h[:, t]
    return h, x[:, None]

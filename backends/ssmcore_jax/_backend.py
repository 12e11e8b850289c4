"""JAX as an ssmcore backend."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import array_api_compat
import numpy as np

from ssmcore.backend import Backend, native
from ssmcore.primitives import REFERENCES

__all__ = ["JaxBackend"]

STATIC = {
    "linear_scan": ("reverse",),
    "diagonal_scan": ("reverse",),
    "diagonal_kernel": ("length",),
    "dplr_kernel": ("length",),
}


@functools.cache
def _compiled() -> Mapping[str, Callable[..., Any]]:
    """Return what runs each primitive, compiled as a whole: JAX's own, else the reference."""
    import jax

    from ssmcore_jax._diagonal import diagonal_scan
    from ssmcore_jax._scan import linear_scan
    from ssmcore_jax._selective import selective_scan

    own: Mapping[str, Callable[..., Any]] = {
        "linear_scan": linear_scan,
        "diagonal_scan": diagonal_scan,
        "selective_scan": selective_scan,
    }
    own = own if native() else {}

    def compiled(name: str) -> Callable[..., Any]:
        return jax.jit(own.get(name, REFERENCES[name]), static_argnames=STATIC.get(name))

    return {name: compiled(name) for name in REFERENCES}


@functools.cache
def _elementwise() -> Mapping[str, Callable[[Any], Any]]:
    import jax

    return {
        "sigmoid": jax.nn.sigmoid,
        "silu": jax.nn.silu,
        "gelu": functools.partial(jax.nn.gelu, approximate=False),
        "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    }


class JaxBackend(Backend):
    """JAX: jit, grad, vmap; 64-bit types only when switched on; imported on first use only."""

    name = "jax"
    library = "jax"
    install = 'pip install "ssmcore[jax]"'
    gradients = True

    @property
    def xp(self) -> Any:
        """``jax.numpy``, which follows the standard itself."""
        return importlib.import_module("jax.numpy")

    def owns(self, x: object) -> bool:
        """Whether ``x`` is a JAX array or tracer."""
        return bool(array_api_compat.is_jax_array(x))

    def devices(self) -> list[str]:
        """The devices of JAX's default platform."""
        import jax

        return [str(d) for d in jax.devices()]

    def processor(self) -> str:
        """JAX's default platform."""
        import jax

        return str(jax.default_backend())

    def primitives(self) -> Mapping[str, Callable[..., Any]]:
        """Scans of JAX's own and the references, each compiled by ``jax.jit`` as a whole."""
        return _compiled()

    def elementwise(self) -> Mapping[str, Callable[[Any], Any]]:
        """Those of ``jax.nn``."""
        return _elementwise()

    def remarks(self) -> list[str]:
        """Whether scans on CUDA devices run as kernels in CUDA C, and why not."""
        from ssmcore_jax import _cuda

        if not _cuda.devices():
            return []
        found = _cuda.finding()
        runs = "kernels in CUDA C" if found.used else "loops of XLA"
        return [f"scans on CUDA run as {runs}: {found.reason}"]

    def from_numpy(self, x: np.ndarray[Any, Any], device: Any = None) -> Any:
        """Return a JAX array with a copy of ``x``."""
        import jax

        return jax.device_put(np.array(x), device)

    def concrete(self, x: Any) -> bool:
        """False while jit, grad or vmap traces."""
        import jax

        return not isinstance(x, jax.core.Tracer)

    def leaves_open(self, size: Any) -> bool:
        """While jax.export traces a symbolic axis."""
        import jax

        return bool(jax.export.is_symbolic_dim(size))

    def stop_gradient(self, x: Any) -> Any:
        """Return ``jax.lax.stop_gradient(x)``."""
        import jax

        return jax.lax.stop_gradient(x)

    def wait(self, x: Any) -> Any:
        """Return ``x.block_until_ready()``."""
        return x.block_until_ready()

    def product(self, u: Any, weight: Any) -> Any:
        """Return u weight^T without a transpose, which XLA's CPU compiler keeps for one row."""
        import jax.numpy as jnp

        return jnp.tensordot(u, weight, axes=(-1, -1))

    def inner(self, x: Any, y: Any, axis: int) -> Any:
        """Return the sum as a product: as a sum XLA's CPU compiler makes it slow, and x twice."""
        import jax
        import jax.numpy as jnp

        return jnp.vecdot(x, y, axis=axis, precision=jax.lax.Precision.HIGHEST)

    def fold(
        self, step: Callable[..., tuple[Any, Any]], carry: Any, inputs: Mapping[str, Any]
    ) -> tuple[Any, Any]:
        """Run the recurrence as one ``jax.lax.scan``."""
        import jax

        from ssmcore_jax._varying import varying_alike

        final, outputs = jax.lax.scan(step, *varying_alike((carry, dict(inputs))))
        return final, outputs

    def compile(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``jax.jit(fn)``."""
        import jax

        return jax.jit(fn)

    def forget_compiled(self) -> None:
        """Call ``jax.clear_caches``: thousands of programs exhaust a process's memory mappings."""
        import jax

        jax.clear_caches()  # type: ignore[no-untyped-call]

    def checkpoint(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``fn`` through ``jax.checkpoint``."""
        import jax

        return jax.checkpoint(fn)

    def value_and_grad(self, fn: Callable[[Any], Any], tree: Any) -> tuple[Any, Any]:
        """Return ``fn(tree)`` and its gradient by ``jax.value_and_grad``."""
        import jax

        value, grads = jax.jit(jax.value_and_grad(fn))(tree)
        return value, grads

    def enable_float64(self) -> None:
        """Switch 64-bit types on for the whole process."""
        import jax

        jax.config.update("jax_enable_x64", True)  # type: ignore[no-untyped-call]

    def has_float64(self) -> bool:
        """Whether 64-bit types are on."""
        import jax

        return bool(jax.config.jax_enable_x64)  # type: ignore[attr-defined]

"""Array libraries as the benchmarks use them: arrays, compiled calls, calls with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.work import Numbers
from ssmcore import backend

__all__ = ["CPU", "GPU", "Library", "library"]

CPU = ("numpy", "torch", "jax")
GPU = ("torch-cuda", "cupy", "jax-cuda")


class Library:
    """One array library on one kind of device; calls return when their work is done."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner = backend.load(name.removesuffix("-cuda"))
        self.device: Any = None

    def arrays(self, values: Sequence[Numbers]) -> list[Any]:
        """Return copies of ``values`` in this library."""
        return [self.owner.from_numpy(x, self.device) for x in values]

    def numpy(self, results: Any) -> list[Numbers]:
        """Return what a call returned as NumPy arrays."""
        return [self.owner.to_numpy(x) for x in _listed(results)]

    def forward(self, fn: Callable[..., Any], given: Sequence[Any]) -> Callable[[], Any]:
        """Return a call of ``fn(*given)``, compiled where the library compiles, no gradients."""
        run = self.owner.compile(fn)
        return lambda: self._wait(run(*given))

    def backward(
        self, fn: Callable[..., Any], given: Sequence[Any], cotangent: Any
    ) -> Callable[[], Any]:
        """Return a call that gives ``fn(*given)`` and its vector-Jacobian product, as one list."""
        msg = f"{self.name} has no automatic differentiation"
        raise NotImplementedError(msg)

    def _wait(self, results: Any) -> Any:
        for x in _listed(results):
            self.owner.wait(x)
        return results


class _Torch(Library):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.device = "cuda" if name.endswith("-cuda") else "cpu"

    def forward(self, fn: Callable[..., Any], given: Sequence[Any]) -> Callable[[], Any]:
        import torch

        return lambda: self._wait(torch.no_grad()(fn)(*given))

    def backward(
        self, fn: Callable[..., Any], given: Sequence[Any], cotangent: Any
    ) -> Callable[[], Any]:
        import torch

        leaves = [x.detach().requires_grad_(True) for x in given]

        def call() -> Any:
            y = fn(*leaves)
            return self._wait([y.detach(), *torch.autograd.grad(y, leaves, cotangent)])

        return call


class _Jax(Library):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        import jax

        self.device = jax.devices("cuda" if name.endswith("-cuda") else "cpu")[0]

    def backward(
        self, fn: Callable[..., Any], given: Sequence[Any], cotangent: Any
    ) -> Callable[[], Any]:
        import jax

        @jax.jit
        def both(given: Sequence[Any], cotangent: Any) -> Any:
            y, pull = jax.vjp(fn, *given)
            return [y, *pull(cotangent)]

        return lambda: self._wait(both(list(given), cotangent))


def library(name: str) -> Library:
    """Return a library by one of the names in CPU and GPU."""
    kind = {"torch": _Torch, "jax": _Jax}.get(name.removesuffix("-cuda"), Library)
    return kind(name)


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, list | tuple) else [results]

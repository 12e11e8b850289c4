"""Array libraries as the benchmarks use them: arrays, compiled calls, calls with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.work import Numbers
from ssmcore import backend
from ssmcore.bench import memory
from ssmcore.errors import SSMError

__all__ = ["CPU", "GPU", "Library", "library"]

CPU = ("numpy", "torch", "jax")
GPU = ("torch-cuda", "cupy", "jax-cuda")
REPEATS = 10  # launches between two waits on a GPU, so that waiting is not what is timed


class Library:
    """One array library on one kind of device; calls return when their work is done.

    Attributes
    ----------
    repeats : how often a call does its work; times are divided by it
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner = backend.load(name.removesuffix("-cuda"))
        self.device: Any = None
        self.repeats = REPEATS if name in GPU else 1

    def arrays(self, values: Sequence[Numbers]) -> list[Any]:
        """Return copies of ``values`` in this library."""
        return [self.owner.from_numpy(x, self.device) for x in values]

    def numpy(self, results: Any) -> list[Numbers]:
        """Return what a call returned as NumPy arrays."""
        return [self.owner.to_numpy(x) for x in _listed(results)]

    def forward(self, fn: Callable[..., Any], given: Sequence[Any]) -> Callable[[], Any]:
        """Return a call of ``fn(*given)``, compiled where the library compiles, no gradients."""
        run = self.owner.compile(fn)
        return self._repeated(lambda: run(*given))

    def backward(
        self, fn: Callable[..., Any], given: Sequence[Any], cotangent: Any
    ) -> Callable[[], Any]:
        """Return a call that gives ``fn(*given)`` and its vector-Jacobian product, as one list."""
        msg = f"{self.name} has no automatic differentiation"
        raise SSMError(msg)

    def peak(self, call: Callable[[], Any]) -> int | None:
        """Return the bytes that ``call`` adds at its worst, its result included; None: unknown."""
        return memory.peak(call)

    def _repeated(self, once: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            for _ in range(self.repeats - 1):
                once()
            results = once()
            for x in _listed(results):
                self.owner.wait(x)
            return results

        return call


class _Torch(Library):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.device = "cuda" if name in GPU else "cpu"

    def forward(self, fn: Callable[..., Any], given: Sequence[Any]) -> Callable[[], Any]:
        import torch

        return self._repeated(lambda: torch.no_grad()(fn)(*given))

    def backward(
        self, fn: Callable[..., Any], given: Sequence[Any], cotangent: Any
    ) -> Callable[[], Any]:
        import torch

        leaves = [x.detach().requires_grad_(True) for x in given]

        def once() -> Any:
            y = fn(*leaves)
            return [y.detach(), *torch.autograd.grad(y, leaves, cotangent)]

        return self._repeated(once)

    def peak(self, call: Callable[[], Any]) -> int | None:
        if self.name not in GPU:
            return super().peak(call)
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return int(torch.cuda.max_memory_allocated() - before)


class _Jax(Library):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        import jax

        self.device = jax.devices("cuda" if name in GPU else "cpu")[0]

    def backward(
        self, fn: Callable[..., Any], given: Sequence[Any], cotangent: Any
    ) -> Callable[[], Any]:
        import jax

        @jax.jit
        def both(given: Sequence[Any], cotangent: Any) -> Any:
            y, pull = jax.vjp(fn, *given)
            return [y, *pull(cotangent)]

        return self._repeated(lambda: both(list(given), cotangent))

    def peak(self, call: Callable[[], Any]) -> int | None:
        return None if self.name in GPU else super().peak(call)


class _Cupy(Library):
    def peak(self, call: Callable[[], Any]) -> int | None:
        import cupy

        pool = cupy.get_default_memory_pool()
        pool.free_all_blocks()
        before = pool.total_bytes()
        call()
        return int(pool.total_bytes() - before)


KINDS = {"torch": _Torch, "jax": _Jax, "cupy": _Cupy}


def library(name: str) -> Library:
    """Return a library by one of the names in CPU and GPU."""
    return KINDS.get(name.removesuffix("-cuda"), Library)(name)


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, list | tuple) else [results]

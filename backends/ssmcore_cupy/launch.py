"""How CuPy compiles and launches kernels in CUDA C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from ssmcore_cuda.source import Source

__all__ = ["NULL", "Launch", "RawLaunch", "strided"]

NULL = np.uint64(0)
"""An argument in place of an array that is not there."""


Launch: TypeAlias = Callable[[Source, str, int, int, Sequence[Any]], None]
"""(source, kernel, blocks, threads of a block, arguments): arrays and NumPy scalars."""


class RawLaunch:
    """Launches kernels through ``cupy.RawKernel``, on the device of their arrays."""

    def __init__(self, cupy: Any) -> None:
        self._cupy = cupy
        self._kernels: dict[tuple[Source, str], Any] = {}

    def __call__(
        self, source: Source, name: str, blocks: int, threads: int, arguments: Sequence[Any]
    ) -> None:
        """Compile at the first call, then launch on the current stream."""
        key = source, name
        if key not in self._kernels:
            options = ("-std=c++17",)
            self._kernels[key] = self._cupy.RawKernel(source.text, name, options=options)
        with next(x.device for x in arguments if isinstance(x, self._cupy.ndarray)):
            self._kernels[key]((blocks,), (threads,), tuple(arguments))


def strided(x: Any, axes: int) -> tuple[Any, ...]:
    """Return ``x`` and its strides in elements, those of axes of length 1 zero; NULLs for None."""
    if x is None:
        return (NULL, *[np.int64(0)] * axes)
    if any(stride % x.itemsize for stride in x.strides):
        x = x.copy()
    steps = zip(x.strides, x.shape, strict=True)
    return (x, *(np.int64(0 if n == 1 else step // x.itemsize) for step, n in steps))

"""The physical limits, measured in the same run: bandwidth, exp rate, matmul rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers import need
from benchmarks.work import Numbers

__all__ = ["add", "exp", "matmul"]

BLOCK = 2**16  # floats that stay in the second-level caches of two cores


def add(a: Numbers, b: Numbers) -> dict[str, Callable[[], Any]]:
    """One ``torch.add`` over arrays of the size of ``a`` and ``b``, the bandwidth floor.

    "add" makes a new array for its result, as every primitive does; "add_ready" writes into one
    that is there, which no function that returns an array can.
    """
    torch = need("torch")

    x, y = (torch.from_numpy(np.ascontiguousarray(v).reshape(-1).view(np.float32)) for v in (a, b))
    ready = torch.empty_like(x)
    return {"add": lambda: torch.add(x, y), "add_ready": lambda: torch.add(x, y, out=ready)}


def exp(shape: tuple[int, ...]) -> dict[str, Callable[[], Any]]:
    """``torch.exp`` of as many numbers as (B, L, H, N) has, a cache-sized block at a time."""
    torch = need("torch")

    block = torch.linspace(-1.0, 0.0, BLOCK)
    out = torch.empty_like(block)
    times = max(1, int(np.prod(shape)) // BLOCK)

    def call() -> None:
        for _ in range(times):
            torch.exp(block, out=out)

    return {"exp": call}


def matmul(rows: int, inner: int, columns: int) -> dict[str, Callable[[], Any]]:
    """Two ``torch.matmul``: (rows, inner) by (inner, columns), and back to (rows, inner).

    They are what a system with ``columns`` real states costs if its recurrence costs nothing.
    """
    torch = need("torch")

    x, there, back = torch.ones(rows, inner), torch.ones(inner, columns), torch.ones(columns, inner)
    return {"matmul": lambda: (x @ there) @ back}

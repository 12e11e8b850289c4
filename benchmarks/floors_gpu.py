"""Floors on a GPU: bandwidth by the library's own addition, the rate of exp by a kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.libraries import Library
from benchmarks.peers import need

__all__ = ["exp", "traffic"]

BLOCK, REPEAT = 1024, 64


def traffic(lib: Library, size: int) -> dict[str, Callable[[], Any]]:
    """Return one addition that moves ``size`` bytes: two arrays in, one out."""
    given = lib.arrays([np.zeros(max(1, size // 12), np.float32)] * 2)
    return {"traffic": lib.forward(lambda a, b: a + b, given)}


def exp(lib: Library, count: int) -> dict[str, Callable[[], Any]]:
    """Return ``count`` exponentials in registers, by a Triton kernel; nothing without torch."""
    if lib.name != "torch-cuda":
        return {}
    torch, kernel = need("torch"), need("benchmarks.kernel_exp").exponentials
    blocks = max(1, count // (BLOCK * REPEAT))
    x = torch.rand(blocks * BLOCK, device=lib.device)
    out = torch.empty_like(x)

    def once() -> Any:
        kernel[(blocks,)](x, out, REPEAT=REPEAT, BLOCK=BLOCK, num_warps=4)
        return out

    return {"exp": lib.forward(once, [])}

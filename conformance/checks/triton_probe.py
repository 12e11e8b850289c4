"""Whether Triton's interpreter works with the NumPy at hand: some pairs of versions do not."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

__all__ = ["trouble"]


@triton.jit
def _count(x, steps):
    for t in range(0, steps, 2):
        tl.store(x + t, t)


def trouble() -> str | None:
    """Return what goes wrong in a loop of two steps, or None."""
    x = torch.zeros(4, dtype=torch.int64)
    try:
        _count[(1,)](x, 4)
    except Exception as error:
        return repr(error)
    return None if x.tolist() == [0, 0, 2, 0] else f"a loop of two steps wrote {x.tolist()}"

"""A Triton kernel that does nothing but exponentials: how many a second the GPU can."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

__all__ = ["exponentials"]


@triton.jit  # type: ignore[untyped-decorator]
def exponentials(x: Any, out: Any, REPEAT: tl.constexpr, BLOCK: tl.constexpr) -> None:
    """out = REPEAT times v -> 2^(-v), elementwise; every program takes BLOCK elements."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at)
    for _ in range(REPEAT):
        value = tl.exp2(-value)
    tl.store(out + at, value)

"""What the Triton kernels are tried on: named cases as plain data, read by both processes.

``layout`` says how the arrays lie in memory: "transposed" with time as the fastest axis, "sliced"
every second channel of a buffer from an odd offset on, "planar" with real and imaginary parts
apart, "far" with time steps more than 2^31 bytes apart. ``chunk`` forces several passes.
"""

from __future__ import annotations

from typing import Any

__all__ = ["CASES"]

LINEAR: dict[str, dict[str, Any]] = {
    "real": {"keep": 2},
    "reverse": {"reverse": True, "keep": 1},
    "long": {"chunk": 4},
    "long, restarts, reverse": {"chunk": 4, "keep": 2, "reverse": True, "twice": True},
    "long, one transition": {"chunk": 4, "a": (1, 1, 3)},
    "one transition, restarts": {"a": (2, 1, 3), "keep": 1, "dtype": "float64"},
    "transition of one row": {"a": (1, 11, 3), "dtype": "float64"},
    "complex": {"dtype": "complex64", "keep": 2, "reverse": True},
    "complex, long, one transition": {"dtype": "complex128", "chunk": 5, "a": (1, 1, 3)},
    "planar": {"dtype": "complex64", "layout": "planar", "chunk": 4},
    "bfloat16": {"dtype": "bfloat16", "layout": "sliced"},
    "float16, one step": {"dtype": "float16", "shape": (3, 1, 40)},
    "transposed": {"layout": "transposed", "shape": (2, 5, 33)},
    "far": {"layout": "far", "dtype": "bfloat16", "shape": (1, 3, 2), "a": (1, 1, 2)},
    "far, reverse": {"layout": "far", "dtype": "bfloat16", "shape": (1, 3, 2), "reverse": True},
    "nothing crosses a restart": {"keep": 1, "poison": True},
    "nothing crosses a restart, long": {"keep": 1, "poison": True, "chunk": 4},
}

SELECTIVE: dict[str, dict[str, Any]] = {
    "real": {},
    "long, restarts": {"shape": (2, 19, 3, 3), "chunk": 8, "keep": 2, "twice": True},
    "float64": {"dtype": "float64", "keep": 1, "shape": (1, 9, 3, 4)},
    "16 states": {"shape": (1, 5, 35, 16)},
    "bfloat16, no D": {"dtype": "bfloat16", "D": False, "shape": (1, 6, 9, 2)},
    "one step, one state": {"shape": (2, 1, 1, 1)},
    "transposed": {"layout": "transposed", "shape": (2, 4, 3, 2)},
    "sliced": {"layout": "sliced", "shape": (2, 5, 3, 3)},
    "far": {"layout": "far", "dtype": "bfloat16", "shape": (1, 3, 2, 2)},
}

SHORT: dict[str, dict[str, Any]] = {
    "4 taps": {},
    "in chunks": {"chunk": 5, "dtype": "float64", "taps": 3, "bias": False},
    "8 taps, fewer steps": {"taps": 8, "shape": (1, 3, 5)},
    "2 taps, transposed": {"taps": 2, "layout": "transposed"},
    "bfloat16, sliced": {"dtype": "bfloat16", "layout": "sliced", "chunk": 4},
}

STEP: dict[str, dict[str, Any]] = {
    "real": {},
    "bfloat16, in place": {"dtype": "bfloat16", "place": True, "shape": (3, 33, 16)},
    "float64, sliced": {"dtype": "float64", "layout": "sliced", "D": False},
}

CAUCHY: dict[str, dict[str, Any]] = {
    "rank 1": {"dtype": "complex64"},
    "rank 2": {"dtype": "complex128", "S": 9, "N": 5},
}

CASES = {
    "linear_scan": LINEAR,
    "selective_scan": SELECTIVE,
    "short_convolution": SHORT,
    "selective_step": STEP,
    "cauchy_sums": CAUCHY,
}

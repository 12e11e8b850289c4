"""Which mode is fastest: a rule fitted from measurements, which are stored beside it.

``ssmcore/data/modes.json`` has, for each way of running a library, the cost of the modes of a
time-invariant system with its own states for each channel, in nanoseconds:

    scan         s_0 + s_1 B L H N
    convolution  c_0 + c_1 B L H log2(2 L) + c_2 L H N

``python -m benchmarks.fit_modes`` measures and writes it.
"""

from __future__ import annotations

import functools
import json
import math
from importlib.resources import files

from ssmcore.backend import Backend
from ssmcore.typing import Array

__all__ = ["costs", "faster_mode", "key", "terms"]

Shape = tuple[int, int, int, int]
"""Batch B, length L, channels H, states N."""


def key(backend: Backend, *given: Array) -> str:
    """Return the name that the way ``given`` will be run goes by in the measurements."""
    native = "diagonal_scan" in backend.primitives() and not backend.differentiates(*given)
    return f"{backend.name}, {'native' if native else 'reference'}"


def terms(shape: Shape) -> dict[str, tuple[float, ...]]:
    """Return what the costs of each mode are proportional to."""
    B, L, H, N = shape
    return {
        "scan": (1.0, float(B * L * H * N)),
        "convolution": (1.0, B * L * H * math.log2(2 * L), float(L * H * N)),
    }


@functools.cache
def costs() -> dict[str, dict[str, list[float]]]:
    """Return the fitted costs of the modes, by the key of the way of running."""
    text = files("ssmcore").joinpath("data/modes.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, list[float]]] = json.loads(text)["costs"]
    return found


def faster_mode(name: str, shape: Shape) -> str:
    """Return "scan" or "convolution"; "convolution" where nothing was measured."""
    if name not in costs():
        return "convolution"
    expected = {
        mode: sum(c * x for c, x in zip(costs()[name][mode], found, strict=True))
        for mode, found in terms(shape).items()
    }
    return min(expected, key=lambda mode: expected[mode])

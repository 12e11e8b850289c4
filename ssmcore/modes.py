"""Which mode is fastest: a rule fitted from measurements, which are stored beside it.

``ssmcore/data/modes.json`` has, for each way of running a library, the cost of the modes of a
time-invariant system with its own states for each channel, in nanoseconds:

    scan         s_0 + s_1 B L H N
    convolution  c_0 + c_1 B L H log2(2 L) + c_2 L H N

``python -m benchmarks.fit_modes`` measures and writes it.
"""

from __future__ import annotations

import json
import math
from importlib.resources import files

from ssmcore.backend import Backend
from ssmcore.typing import Array

__all__ = ["COSTS", "faster_mode", "key", "terms"]

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
        "convolution": (1.0, B * L * H * math.log2(2 * max(L, 1)), float(L * H * N)),
    }


def _stored() -> dict[str, dict[str, list[float]]]:
    text = files("ssmcore").joinpath("data/modes.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, list[float]]] = json.loads(text)["costs"]
    return found


COSTS = _stored()
"""The fitted costs of the modes, by the key of the way of running; read with this module, because
no compiler follows the reading of a file."""


def faster_mode(name: str, shape: Shape) -> str:
    """Return "scan" or "convolution"; "convolution" where nothing was measured."""
    if name not in COSTS:
        return "convolution"
    expected = {
        mode: sum(c * x for c, x in zip(COSTS[name][mode], found, strict=True))
        for mode, found in terms(shape).items()
    }
    return min(expected, key=lambda mode: expected[mode])

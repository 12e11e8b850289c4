"""Which mode is fastest: a rule fitted from measurements, which are stored beside it.

``ssmcore/data/modes.json`` has, for each way of running a library, the cost of the modes of a
time-invariant system with its own states for each channel, in nanoseconds:

    scan         s_0 + s_1 B L H N + s_2 H N
    convolution  c_0 + c_1 B L H log2(2 L) + c_2 L H N
    recurrence   r_0 + r_1 L + r_2 B L H N

The recurrence takes part where the loop over time is compiled, with JAX.
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
    where = "" if backend.processor() == "cpu" else f", {backend.processor()}"
    return f"{backend.name}, {'native' if native else 'reference'}{where}"


def terms(shape: Shape) -> dict[str, tuple[float, ...]]:
    """Return what the costs of each mode are proportional to."""
    B, L, H, N = shape
    return {
        "scan": (1.0, float(B * L * H * N), float(H * N)),
        "convolution": (1.0, B * L * H * math.log2(2 * max(L, 1)), float(L * H * N)),
        "recurrence": (1.0, float(L), float(B * L * H * N)),
    }


def _stored() -> dict[str, dict[str, list[float]]]:
    text = files("ssmcore").joinpath("data/modes.json").read_text(encoding="utf-8")
    found: dict[str, dict[str, list[float]]] = json.loads(text)["costs"]
    return found


COSTS = _stored()
"""The fitted costs of the modes, by the key of the way of running; read with this module, because
no compiler follows the reading of a file."""


def faster_mode(name: str, shape: Shape) -> str:
    """Return the mode that is expected to be fastest; "convolution" where nothing was measured."""
    found = terms(shape)
    expected = {
        mode: sum(c * x for c, x in zip(costs, found[mode], strict=True))
        for mode, costs in COSTS.get(name, {}).items()
    }
    return min(expected, key=lambda mode: expected[mode]) if expected else "convolution"

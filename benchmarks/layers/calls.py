"""What the files of layers share: parameters flat, so that gradients are those of all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.exact import wide
from benchmarks.work import Numbers
from ssmcore import Layer, arrays

__all__ = ["INVARIANT", "QUICK", "SIZES", "VARYING", "backward", "forward", "step"]

INVARIANT = ("auto", "recurrence", "scan", "convolution")
VARYING = ("auto", "recurrence", "scan")
SIZES = [(4, 1024), (1, 8192)]  # batch, length
QUICK = [(2, 32)]
LOOP = 1024  # steps that a recurrence which is a loop of Python is waited for


def forward(run: Any, lib: str, layer: Layer, size: tuple[int, int], mode: str) -> None:
    """Time the layer in one mode, beside the scan of NumPy in float64."""
    if mode == "recurrence" and size[-1] > LOOP and not lib.startswith("jax"):
        pytest.skip(f"a loop of Python over {size[-1]} steps")
    values = _inputs(layer, size)
    run(_call(layer, mode), values, lambda: [_call(layer, "scan")(*map(wide, values))])


def backward(run: Any, layer: Layer, size: tuple[int, int]) -> None:
    """Time mode "auto" with the gradients of all parameters and of the input."""
    run(_call(layer, "auto"), _inputs(layer, size), cotangent=_ones(layer, size))


def step(run: Any, layer: Layer, batch: int) -> None:
    """Time one step of a stream."""
    *params, u = _inputs(layer, (batch, 1))
    names = _names(layer)

    def call(*given: Any) -> Any:
        return layer.step(dict(zip(names, given, strict=False)), given[-1])[0]

    run(call, [*params, u[:, 0]])


def _names(layer: Layer) -> list[str]:
    return [name for name, _ in arrays.leaves(layer.init(0))]


def _inputs(layer: Layer, size: tuple[int, int]) -> list[Numbers]:
    """Return all parameters, in the order of their names, and an input (*size, H)."""
    u = np.random.default_rng(0).standard_normal((*size, layer.d_model), np.float32)
    return [*(x for _, x in arrays.leaves(layer.init(0))), u]


def _ones(layer: Layer, size: tuple[int, int]) -> Numbers:
    return np.ones((*size, layer.d_output), np.float32)


def _call(layer: Layer, mode: str) -> Callable[..., Any]:
    names = _names(layer)

    def call(*given: Any) -> Any:
        return layer(dict(zip(names, given, strict=False)), given[-1], mode=mode)

    return call

"""Cost against the length of the sequence and the number of states, with fitted exponents."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks.libraries import CPU, library
from benchmarks.rows import diagonal, kernels, linear, selective
from benchmarks.work import Numbers
from ssmcore.bench import memory
from ssmcore.bench.timing import first_call, interleave

__all__ = ["CURVES", "Curve", "exponent", "measure"]

LENGTHS = tuple(2**k for k in range(8, 21, 2))
STATES = tuple(2**k for k in range(1, 9))
QUICK = (16, 32, 64)
LENGTH = 4096  # of the curves over states
BAR = 1.1
SECONDS = 0.3

Inputs = tuple[list[Numbers], Callable[..., Any]]


@dataclass(frozen=True)
class Curve:
    """One primitive over one axis, on all libraries.

    Attributes
    ----------
    inputs : from a size on the axis to NumPy inputs and the function that is called with them
    limit : the largest exponent allowed, for time and memory; None where there is no bar
    """

    name: str
    what: str
    axis: str
    sizes: tuple[int, ...]
    inputs: Callable[[int], Inputs]
    limit: float | None = None


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Return the exponent of cost ~ size^p, by least squares over the upper half of the sizes.

    What a call costs whatever its size would hide the growth in the lower half.
    """
    upper = len(sizes) // 2
    slope, _ = np.polyfit(np.log(sizes[upper:]), np.log(np.maximum(costs[upper:], 1e-12)), 1)
    return float(slope)


def measure(
    curve: Curve,
    *,
    quick: bool = False,
    libraries: Sequence[str] = CPU,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return times and peak memory at every size on every library."""
    sizes = QUICK if quick else curve.sizes
    series = [_series(curve, sizes, name, quick, progress) for name in libraries]
    return {
        "curve": curve.name,
        "what": curve.what,
        "axis": curve.axis,
        "sizes": list(sizes),
        "limit": curve.limit,
        "libraries": series,
    }


def _series(
    curve: Curve, sizes: Sequence[int], name: str, quick: bool, progress: Callable[[str], None]
) -> dict[str, Any]:
    lib = library(name)
    seconds, peaks = [], []
    for size in sizes:
        progress(f"{name}, {curve.axis} = {size}")
        call = _call(lib, curve, size)
        first_call(call)
        times = interleave({"call": call}, seconds=0.0 if quick else SECONDS)
        seconds.append(times["call"].median)
    for size in sizes:
        progress(f"memory of {name}, {curve.axis} = {size}")
        peaks.append(memory.peak(_call(lib, curve, size)))
    known = [x for x in peaks if x is not None]
    powers = {
        "time": exponent(sizes, seconds),
        "memory": exponent(sizes, known) if len(known) == len(sizes) else None,
    }
    judged = [] if curve.limit is None else [p for p in powers.values() if p is not None]
    return {
        "library": name,
        "seconds": seconds,
        "peak_bytes": peaks,
        "exponents": powers,
        "holds": max(judged) <= curve.limit if judged and curve.limit else None,
    }


def _call(lib: Any, curve: Curve, size: int) -> Callable[[], Any]:
    values, fn = curve.inputs(size)
    call: Callable[[], Any] = lib.forward(fn, lib.arrays(values))
    return call


def _scan(length: int) -> Inputs:
    return linear.draw((1, length, 16), "float32")[:2], ssm.linear_scan


def _selective(length: int, states: int) -> Inputs:
    return selective.draw((1, length, 8, states))[:-1], ssm.selective_scan


def _diagonal(length: int, states: int) -> Inputs:
    return diagonal.draw((1, length, 16, states)), ssm.diagonal_scan


def _diagonal_kernel(length: int, pairs: int) -> Inputs:
    values = kernels.diagonal_values(4, pairs, length)
    return values[1:], lambda a, c: ssm.diagonal_kernel(a, c, length)


def _dplr_kernel(length: int, pairs: int) -> Inputs:
    return kernels.dplr_values(4, pairs, length), functools.partial(ssm.dplr_kernel, length=length)


def _causal(length: int) -> Inputs:
    u = np.random.default_rng(0).standard_normal((2, length, 16), np.float32)
    return [u[:1], u[1]], ssm.causal_convolution


def _short(length: int) -> Inputs:
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(shape, np.float32) for shape in ((1, length, 16), (4, 16))]
    return values, lambda u, weight: ssm.short_convolution(u, weight)[0]


def _over_length(name: str, what: str, inputs: Callable[[int], Inputs]) -> Curve:
    return Curve(f"cost_{name}_length", what, "L", LENGTHS, inputs, BAR)


def _over_states(name: str, what: str, inputs: Callable[[int, int], Inputs]) -> Curve:
    return Curve(f"cost_{name}_states", what, "N", STATES, functools.partial(inputs, LENGTH))


CURVES = {
    curve.name: curve
    for curve in (
        _over_length("linear_scan", "(1, L, 16)", _scan),
        _over_length("selective_scan", "(1, L, 8, 8)", lambda L: _selective(L, 8)),
        _over_length("diagonal_scan", "B 1, H 16, P 16", lambda L: _diagonal(L, 16)),
        _over_length("diagonal_kernel", "H 4, 8 pairs", lambda L: _diagonal_kernel(L, 8)),
        _over_length("dplr_kernel", "H 4, 8 pairs", lambda L: _dplr_kernel(L, 8)),
        _over_length("causal_convolution", "(1, L, 16)", _causal),
        _over_length("short_convolution", "(1, L, 16), 4 taps", _short),
        _over_states("selective_scan", f"(1, {LENGTH}, 8, N)", _selective),
        _over_states("diagonal_scan", f"B 1, L {LENGTH}, H 16, P = N", _diagonal),
        _over_states("diagonal_kernel", f"H 4, L {LENGTH}, N pairs", _diagonal_kernel),
        _over_states("dplr_kernel", f"H 4, L {LENGTH}, N pairs", _dplr_kernel),
    )
}

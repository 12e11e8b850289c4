"""CuPy's short_convolution: its kernel run on the CPU against a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks.cushim import host
from ssmcore_conformance import oracles
from ssmcore_conformance.tolerances import bound, steps
from ssmcore_cupy.convolution import MOST_TAPS, short_convolution

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))

SIZES = {
    "tiles": ((2,), 71, 33, 4),
    "shorter than the taps": ((1, 3), 2, 5, 4),
    "one step": ((40,), 1, 3, 4),
    "one tap": ((), 9, 40, 1),
    "most taps": ((2,), 33, 2, MOST_TAPS),
}


def problem(
    batch: tuple[int, ...], length: int, channels: int, taps: int, dtype: str = "float32"
) -> list[Any]:
    rng = np.random.default_rng(0)
    shapes = (
        (*batch, length, channels),
        (taps, channels),
        (channels,),
        (*batch, taps - 1, channels),
    )
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def check(launch: Any, u: Any, weight: Any, bias: Any, state: Any) -> None:
    y, last = short_convolution(launch, u, weight, bias, state)
    expected, inputs = oracles.short_convolution(u, weight, bias, state)
    growth, _ = oracles.short_convolution(u, weight, bias, state, modulus=True)
    assert y.dtype == last.dtype == u.dtype
    assert last.shape == inputs.shape
    assert np.array_equal(last, inputs)
    assert np.all(np.abs(y - expected) <= bound(u.dtype, steps(0, len(weight)), growth))


@pytest.mark.parametrize("order", [host.FORWARD, host.BACKWARD, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_value(size: str, dtype: str, order: int) -> None:
    """With bias and state, at any length, and the last inputs."""
    launch = host.HostLaunch(order)
    check(launch, *problem(*SIZES[size], dtype))
    assert launch.launched == ["short_convolution"]


@pytest.mark.parametrize("size", SIZES)
def test_without_what_is_optional(size: str) -> None:
    u, weight, _, _ = problem(*SIZES[size])
    check(host.HostLaunch(), u, weight, None, None)


def test_layouts_in_memory() -> None:
    """All arguments are read where they lie, whatever their strides."""
    u, weight, bias, state = problem(*SIZES["tiles"])
    time_last = np.ascontiguousarray(u.transpose(0, 2, 1)).transpose(0, 2, 1)
    backwards = np.ascontiguousarray(weight[::-1, ::-1])[::-1, ::-1]
    wide = np.full((2, *state.shape), np.nan, "float32").transpose(1, 2, 3, 0)
    wide[..., 1] = state
    given = [time_last, backwards, np.repeat(bias, 2)[::2], wide[..., 1]]
    for x in given:
        x.flags.writeable = False
    check(host.HostLaunch(), *given)


def test_chunks_carry_the_state() -> None:
    """In chunks, some shorter than the taps, the state handed on, bit for bit."""
    u, weight, bias, state = problem(*SIZES["tiles"])
    whole, end = short_convolution(host.HostLaunch(), u, weight, bias, state)
    parts = []
    for chunk in np.split(u, [1, 3, 40], axis=-2):
        y, state = short_convolution(host.HostLaunch(), chunk, weight, bias, state)
        parts.append(y)
    assert np.array_equal(np.concatenate(parts, axis=-2), whole)
    assert np.array_equal(state, end)


def test_what_the_kernel_does_not_take_runs_as_the_reference() -> None:
    """No steps, or more taps than a thread can hold."""
    launch = host.HostLaunch()
    for given in (problem((2,), 0, 3, 4), problem((), 5, 3, MOST_TAPS + 1)):
        check(launch, *given)
    assert launch.launched == []

"""The backward kernel of selective_scan: run on the CPU against the adjoint written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks.cushim import host
from ssmcore_conformance import adjoints
from ssmcore_conformance.tolerances import bound, steps
from ssmcore_cupy.selective import Given, forward
from ssmcore_cupy.selective_backward import backward, checkpoints_for

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))

SIZES = {
    "groups of channels": (2, 19, 37, 16),
    "one lane": (1, 9, 130, 3),
    "odd states": (1, 5, 3, 13),
    "most states": (1, 9, 2, 128),
    "one step": (2, 1, 5, 4),
    "cut in time": (1, 516, 2, 3),
}


def problem(size: tuple[int, int, int, int], dtype: str) -> tuple[Given, Any, Any]:
    """Return arguments by rows and the gradients by outputs and last states."""
    rng, (rows, length, channels, states) = np.random.default_rng(0), size

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    given = Given(
        draw(rows, length, channels),
        np.abs(draw(rows, length, channels)),
        -np.exp(draw(channels, states)),
        draw(rows, length, states),
        draw(rows, length, states),
        draw(channels),
        rng.random((rows, length)) < 0.1,
        draw(rows, channels, states),
    )
    return given, draw(rows, length, channels), draw(rows, channels, states)


def check(launch: Any, given: Given, y_bar: Any, last_bar: Any) -> None:
    checkpoints = checkpoints_for(given)
    forward(launch, given, checkpoints)
    got = backward(launch, given, checkpoints, y_bar, last_bar)
    named = given._asdict()
    named["initial"] = named.pop("start")
    last_bar = np.zeros_like(given.start) if last_bar is None else last_bar
    expected = adjoints.selective_scan(named, (y_bar, last_bar))
    growth = adjoints.selective_scan(named, (y_bar, last_bar), modulus=True)
    (rows, length, channels), states = given.u.shape, given.A.shape[1]
    exponents = 2 + float(np.max(given.delta) * np.max(np.abs(given.A)))
    count = exponents * steps(2 * length, rows * channels + states)
    for name, x in got._asdict().items():
        key = "initial" if name == "start" else name
        assert x.dtype == given.u.dtype
        assert x.shape == expected[key].shape, name
        assert np.all(np.abs(x - expected[key]) <= bound(x.dtype, count, growth[key])), name


@pytest.mark.parametrize(
    ("dtype", "order"), [("float32", host.BACKWARD), ("float64", host.FORWARD), ("float64", 7)]
)
@pytest.mark.parametrize("size", SIZES)
def test_value(size: str, dtype: str, order: int) -> None:
    """By every argument, with restarts, an initial state and a gradient by the last states."""
    launch = host.HostLaunch(order)
    check(launch, *problem(SIZES[size], dtype))
    assert launch.launched.count("selective_scan_backward") == 1
    assert ("linear_scan" in launch.launched) == (size == "cut in time")


def test_without_what_is_optional() -> None:
    given, y_bar, _ = problem(SIZES["groups of channels"], "float64")
    launch = host.HostLaunch(7)
    zeros = np.zeros_like(given.start)
    plain = given._replace(reset=None, start=None, D=None)
    checkpoints = checkpoints_for(plain)
    forward(launch, plain, checkpoints)
    got = backward(launch, plain, checkpoints, y_bar, None)
    full = given._replace(reset=np.zeros_like(given.reset), start=zeros, D=np.zeros_like(given.D))
    forward(launch, full, checkpoints)
    for x, y in zip(got, backward(launch, full, checkpoints, y_bar, zeros), strict=True):
        assert np.array_equal(x, y)


def test_layouts_in_memory() -> None:
    """All arguments are read where they lie, whatever their strides."""
    given, y_bar, last_bar = problem(SIZES["groups of channels"], "float32")
    turned: list[Any] = [np.asfortranarray(x) for x in (*given, y_bar, last_bar)]
    for x in turned:
        x.flags.writeable = False
    check(host.HostLaunch(7), Given(*turned[:-2]), turned[-2], turned[-1])

"""CuPy's diagonal_scan: its kernels run on the CPU, the threads in several orders, and a loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks.cushim import host
from ssmcore_conformance import oracles
from ssmcore_conformance.tolerances import bound, steps
from ssmcore_cupy import diagonal
from ssmcore_cupy.diagonal import Layout, diagonal_scan, layout

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))

ORDERS = (host.FORWARD, host.BACKWARD, 7)


def problem(
    batch: tuple[int, ...], length: int, channels: int, states: int, dtype: str, mixing: bool
) -> tuple[list[Any], dict[str, Any]]:
    """Moduli of the transition up to 1, most of them near."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        z = rng.standard_normal(shape)
        return (z + 1j * rng.standard_normal(shape) if "complex" in dtype else z).astype(dtype)

    own = (states,) if mixing else (channels, states)
    z = draw(*own)
    a = (z / np.abs(z) * rng.random(own) ** 0.1).astype(dtype)
    B = draw(states, channels) if mixing else draw(*own)
    C = draw(channels, states) if mixing else draw(*own)
    u = draw(*batch, length, channels).real
    reset = rng.random((*batch, length)) < 0.05
    given, D = [a, B, C, u, draw(*batch, *own)], draw(channels).real
    return given, {"D": D, "reset": reset, "reverse": False}


def check(launch: Any, given: list[Any], options: dict[str, Any]) -> None:
    found = diagonal_scan(launch, *given, **options)
    expected = oracles.diagonal_scan(*given, **options)
    growth = oracles.diagonal_scan(*given, **options, modulus=True)
    a, *_, u, _ = given
    count = steps(u.shape[-2], a.shape[-1] + u.shape[-1])
    for x, value, size, dtype in zip(found, expected, growth, (u.dtype, a.dtype), strict=True):
        assert x.dtype == dtype
        assert x.shape == value.shape
        assert np.all(np.abs(x - value) <= bound(dtype, count, size))


SIZES = {
    "one lane": ((2,), 19, 130, 1, "float32"),
    "lanes": ((2, 1), 21, 37, 13, "complex128"),
    "most states": ((1,), 10, 5, 128, "complex64"),
    "one step": ((2,), 1, 9, 16, "float64"),
    "cut": ((2,), 4 * diagonal.SHORTEST + 5, 3, 7, "complex64"),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", SIZES)
def test_separate_channels(size: str, order: int) -> None:
    """Ragged widths and lengths, any number of states, both ways; some without restarts."""
    launch = host.HostLaunch(order)
    given, options = problem(*SIZES[size], mixing=False)
    check(launch, given, options)
    bare = {"reset": None} if size in ("lanes", "cut") else {}
    check(launch, given, options | {"reverse": True} | bare)
    once = ["diagonal_scan", "linear_scan", "diagonal_scan"][slice(None if size == "cut" else 1)]
    assert launch.launched == once * 2


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
def test_all_channels_mixed(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In parts that hold the states of a few steps only, both ways, with restarts."""
    monkeypatch.setattr(diagonal, "SHORTEST", 8)
    monkeypatch.setattr(diagonal, "NUMBERS", 10)
    given, options = problem((2,), 21, 5, 6, dtype, mixing=True)
    for reverse in (False, True):
        launch = host.HostLaunch(7)
        check(launch, given, options | {"reverse": reverse})
        assert launch.launched == ["linear_scan"] * 3


@pytest.mark.parametrize("mixing", [False, True])
def test_without_what_is_optional_and_whatever_the_layout(mixing: bool) -> None:
    """A row of restarts for all, read-only arrays of any strides, no initial state."""
    given, options = problem((2, 2), 9, 5, 13, "complex128", mixing)
    scattered = []
    for x in given[:4]:
        wide = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan).astype(x.dtype)
        wide[..., 1::2] = x[..., ::-1]
        view = wide[..., 1::2][..., ::-1]
        view.flags.writeable = False
        scattered.append(view)
    options["reset"] = options["reset"][0, 0]
    check(host.HostLaunch(7), [*scattered, None], options)


@pytest.mark.parametrize("length", [19, 4 * diagonal.SHORTEST])
def test_nothing_crosses_a_restart(length: int) -> None:
    """NaN in the input and the initial state stays before the restart, in segments too."""
    (a, B, C, u, initial), options = problem((2,), length, 3, 7, "complex64", mixing=False)
    cut = length - 4
    options["reset"] = np.arange(length) == cut
    expected = diagonal_scan(
        host.HostLaunch(), a, B, C, u[:, cut:], None, **options | {"reset": None}
    )
    u[:, :cut], initial[:] = np.nan, np.nan
    y, last = diagonal_scan(host.HostLaunch(7), a, B, C, u, initial, **options)
    assert np.array_equal(y[:, cut:], expected[0])
    assert np.array_equal(last, expected[1])
    assert np.all(np.isnan(y[:, :cut]))


def test_an_infinite_input_is_an_infinite_output() -> None:
    """Lanes without a state of their own do not make it NaN."""
    a = np.full((2, 3), 0.5, "float32")
    u = np.full((4, 2), np.inf, "float32")
    y, last = diagonal_scan(host.HostLaunch(), a, a, a, u, None, reset=None, reverse=False)
    assert np.all(y == np.inf)
    assert np.all(last == np.inf)


def test_a_constant_input_does_not_drift() -> None:
    """States err by their own rounding, not by half an ulp a step."""
    a, one = np.full((2, 1), 1 - 2.0**-14, "float32"), np.ones((2, 1), "float32")
    u = np.full((4096, 2), 0.1, "float32")
    y, _ = diagonal_scan(host.HostLaunch(), a, one, one, u, None, reset=None, reverse=False)
    expected, _ = oracles.diagonal_scan(a, one, one, u)
    assert np.all(np.abs(y - expected) <= 0.51 * np.spacing(np.abs(expected).astype("float32")))


@pytest.mark.parametrize(("rows", "length", "states"), [(0, 4, 3), (1, 0, 3), (1, 3, 129)])
def test_what_the_kernel_does_not_take_runs_as_the_reference(
    rows: int, length: int, states: int
) -> None:
    """Nothing to do, or more states a channel than the threads of a warp hold."""
    launch = host.HostLaunch()
    check(launch, *problem((rows,), length, 2, states, "complex64", mixing=False))
    assert launch.launched == []


def test_layout() -> None:
    """More lanes for many states and few channels; segments that are powers of two."""
    assert layout(1 << 16, 100, 4, 4) == Layout(1, 4, 1, 100)
    assert layout(1 << 16, 100, 32, 4) == Layout(8, 4, 1, 100)
    assert layout(1 << 14, 100, 32, 4) == Layout(8, 4, 1, 100)
    assert layout(1 << 10, 100, 32, 4) == Layout(32, 1, 1, 100)
    assert layout(256, 1 << 14, 32, 4) == Layout(32, 1, 8, 2048)
    assert layout(1, 600, 32, 4) == Layout(32, 1, 5, 128)
    assert layout(1, 511, 32, 4).segments == 1

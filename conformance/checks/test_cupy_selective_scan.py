"""CuPy's selective_scan: its kernel run on the CPU, the threads in several orders, and a loop."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from checks.cushim import host
from ssmcore_conformance import oracles
from ssmcore_conformance.tolerances import bound, steps
from ssmcore_cuda import selective
from ssmcore_cuda.selective import Layout, layout
from ssmcore_cupy.selective import selective_scan

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))

ORDERS = (host.FORWARD, host.BACKWARD, 7)


def problem(
    batch: tuple[int, ...], length: int, channels: int, states: int, dtype: str = "float32"
) -> tuple[list[Any], dict[str, Any]]:
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    u, delta = draw(*batch, length, channels), np.abs(draw(*batch, length, channels))
    A = -np.exp(draw(channels, states))
    B, C = draw(*batch, length, states), draw(*batch, length, states)
    given = [u, delta, A, B, C, draw(channels)]
    reset = rng.random((*batch, length)) < 0.1
    return given, {"initial": draw(*batch, channels, states), "reset": reset}


def check(launch: Any, given: list[Any], options: dict[str, Any]) -> None:
    got = selective_scan(launch, *given, **options)
    expected = oracles.selective_scan(*given, **options)
    growth = oracles.selective_scan(*given, **options, modulus=True)
    exponents = np.max(np.abs(given[1])) * np.max(np.abs(given[2]))
    count = steps(given[0].shape[-2], given[2].shape[-1]) * (2 + float(exponents))
    for x, value, size in zip(got, expected, growth, strict=True):
        assert x.dtype == given[0].dtype
        assert x.shape == value.shape
        assert np.all(np.abs(x - value) <= bound(x.dtype, count, size))


SIZES = {
    "one lane": ((2,), 19, 130, 4),
    "lanes": ((), 21, 37, 16),
    "odd states": ((2, 1), 9, 3, 13),
    "most states": ((1,), 10, 5, 256),
    "one state": ((3,), 11, 2, 1),
    "one step": ((2,), 1, 9, 16),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_value(size: str, dtype: str, order: int) -> None:
    """Ragged widths and lengths, any number of states, with restarts and an initial state."""
    launch = host.HostLaunch(order)
    check(launch, *problem(*SIZES[size], dtype))
    assert launch.launched == ["selective_scan"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ORDERS)
def test_few_channels_are_cut_in_time(order: int, dtype: str) -> None:
    """A long sequence in segments, the last of them shorter, with and without restarts."""
    launch, segments = host.HostLaunch(order), 3 * selective.SHORTEST + 5
    given, options = problem((2,), segments, 3, 13, dtype)
    given[2] *= np.asarray(2**-9, dtype)  # so that states last over segments
    options["reset"] = np.arange(segments) == 200
    check(launch, given, options)
    check(launch, given, {"initial": options["initial"], "reset": None})
    assert launch.launched == ["selective_scan", "linear_scan", "selective_scan"] * 2


def test_without_what_is_optional() -> None:
    given, _ = problem(*SIZES["lanes"])
    given[5] = None
    check(host.HostLaunch(7), given, {"initial": None, "reset": None})


def test_one_row_of_restarts() -> None:
    given, options = problem(*SIZES["odd states"])
    options["reset"] = options["reset"][0, 0]
    check(host.HostLaunch(7), given, options)


def _scattered(x: Any) -> Any:
    """Return ``x`` read-only, every second step of memory, its last axis backwards."""
    wide = np.full((*x.shape[:-1], 2 * x.shape[-1] + 1), np.nan).astype(x.dtype)
    wide[..., 1::2] = x[..., ::-1]
    view = wide[..., 1::2][..., ::-1]
    view.flags.writeable = False
    return view


def test_layouts_in_memory() -> None:
    """All arguments are read where they lie, whatever their strides."""
    given, options = problem(*SIZES["lanes"])
    scattered = [_scattered(x) for x in given]
    assert all(np.array_equal(x, y) for x, y in zip(given, scattered, strict=True))
    check(host.HostLaunch(7), scattered, {k: _scattered(x) for k, x in options.items()})


@pytest.mark.parametrize("length", [19, 3 * selective.SHORTEST])
def test_nothing_crosses_a_restart(length: int) -> None:
    """NaN in u, B, C and the initial state stays before the restart, in segments too."""
    (u, delta, A, B, C, D), options = problem((2,), length, 40, 4)
    cut = u.shape[-2] - 4
    options["reset"] = np.arange(u.shape[-2]) == cut
    late = [u[..., cut:, :], delta[..., cut:, :], A, B[..., cut:, :], C[..., cut:, :], D]
    expected, state = selective_scan(host.HostLaunch(), *late, initial=None, reset=None)
    for x in (u, B, C):
        x[..., :cut, :] = np.nan
    options["initial"][:] = np.nan
    y, last = selective_scan(host.HostLaunch(7), u, delta, A, B, C, D, **options)
    assert np.array_equal(y[..., cut:, :], expected)
    assert np.array_equal(last, state)
    assert np.all(np.isnan(y[..., :cut, :]))


@pytest.mark.parametrize("length", [100, 3000])
def test_a_constant_input_does_not_drift(length: int) -> None:
    """Neither a rounded state nor a rounded exp(delta A) is half an ulp off at every step."""
    one, B = np.ones((length, 2), "float32"), np.full((length, 4), 0.1, "float32")
    A = np.full((2, 4), -(2.0**-13) / 3, "float32")
    _, last = selective_scan(host.HostLaunch(), one, one, A, B, B, None, initial=None, reset=None)
    rate = float(A[0, 0])
    expected = float(B[0, 0]) * np.expm1(rate * length) / np.expm1(rate)
    assert np.all(np.abs(last - expected) <= 2 * np.spacing(np.float32(expected)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_exponentials_of_any_size(dtype: str) -> None:
    """From 0 by underflow to infinity by overflow, near 0 to one rounding."""
    eps, largest = np.finfo(dtype).eps, np.log(np.finfo(dtype).max)
    x = np.linspace(-0.98, 0.98, 81) * largest
    x = np.concatenate([x, np.linspace(-2, 2, 81), [0, -1e-7, 1e-7, -1e30, -np.inf]]).astype(dtype)
    one, zero = np.ones((1, len(x)), dtype), np.zeros((1, 1), dtype)
    start = np.ones((len(x), 1), dtype)
    given = one, one, x[:, None], zero, zero, None
    _, last = selective_scan(host.HostLaunch(), *given, initial=start, reset=None)
    expected = np.exp(x.astype(np.longdouble))
    error = np.abs(last[:, 0] - expected) / np.maximum(expected, np.finfo(dtype).smallest_normal)
    assert np.all(error <= eps * (1 + np.abs(np.where(np.isfinite(x), x, 0)) / 4))
    assert np.array_equal(last[-2:, 0], [0, 0])
    grown = np.asarray([[1.01 * largest], [1e30]], dtype)
    _, last = selective_scan(
        host.HostLaunch(),
        one[:, :2],
        one[:, :2],
        grown,
        zero,
        zero,
        None,
        initial=start[:2],
        reset=None,
    )
    assert not np.any(np.isfinite(last))


def test_nan_in_the_transition_is_not_lost() -> None:
    """It stays in the state for ever, over a restart too, and in its own channel."""
    given, options = problem((), 9, 3, 4)
    given[2][1, 2] = np.nan
    y, last = selective_scan(host.HostLaunch(), *given, **options)
    assert np.array_equal(np.isnan(last), np.isnan(given[2]))
    assert np.array_equal(np.isnan(y), np.broadcast_to([False, True, False], y.shape))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: {"A": x["A"] + 0j},
        lambda x: {"B": x["B"][..., None, :] + np.zeros_like(x["A"])},
        lambda x: {"u": x["u"][:0], "delta": x["delta"][:0], "B": x["B"][:0], "C": x["C"][:0]},
    ],
)
def test_what_the_kernel_does_not_take_runs_as_the_reference(change: Any) -> None:
    """Complex A, B of each channel's own, no steps at all."""
    names = ("u", "delta", "A", "B", "C", "D")
    named = dict(zip(names, problem((), 6, 2, 3, "float64")[0], strict=True))
    named |= change(named)
    launch = host.HostLaunch()
    y, last = selective_scan(launch, *named.values(), initial=None, reset=None)
    expected, state = oracles.selective_scan(*named.values())
    allowed = 6 * 8 * np.finfo(np.float64).eps  # six steps of at most eight roundings each
    for found, exact in ((y, expected), (last, state)):
        assert found.shape == exact.shape
        assert np.abs(found - exact).max(initial=0.0) <= allowed * np.abs(exact).max(initial=1.0)
    assert launch.launched == []


def test_more_states_than_threads_can_hold_run_as_the_reference() -> None:
    given, _ = problem((), 2, 1, selective.MOST_STATES + 1)
    launch = host.HostLaunch()
    selective_scan(launch, *given, initial=None, reset=None)
    assert launch.launched == []


def test_layout() -> None:
    """One thread a channel where there are many; more for many states, few channels, one step."""
    chosen = partial(layout, length=100, itemsize=4)
    assert chosen(1 << 16, states=16) == Layout(2, 8, 4, 8, 1)
    assert chosen(1 << 16, states=256) == Layout(32, 8, 4, 8, 1)
    assert chosen(1 << 14, states=16) == Layout(4, 4, 4, 8, 1)
    assert chosen(1, states=6) == Layout(2, 3, 1, 8, 1)
    assert layout(768, 1 << 14, 16, 4) == Layout(4, 4, 4, 8, 21)
    assert layout(1, 600, 6, 4).segments == 4
    assert layout(1 << 16, 1, 16, 4) == Layout(16, 1, 1, 1, 1)
    assert layout(1 << 16, 100, 256, 8) == Layout(32, 8, 2, 4, 1)

"""CuPy's linear_scan: its kernels run on the CPU, the threads in several orders, against a loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks.cushim import host
from ssmcore_conformance import oracles
from ssmcore_conformance.tolerances import bound, steps
from ssmcore_cuda.linear import segments
from ssmcore_cupy.linear import linear_scan

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))

DTYPES = ("float32", "float64", "complex64", "complex128")
ORDERS = (host.FORWARD, host.BACKWARD, 7)
SHAPES = {"ragged": (2, 70, 33), "cut": (1, 2100, 3), "short": (3, 2, 5, 20), "one": (3, 1, 5)}


def numbers(rng: Any, shape: tuple[int, ...], dtype: str) -> Any:
    z = rng.standard_normal(shape)
    return (z + 1j * rng.standard_normal(shape) if "complex" in dtype else z).astype(dtype)


def transition(rng: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """Moduli up to 1, most of them near."""
    z = numbers(rng, shape, dtype)
    return (z / np.abs(z) * rng.random(shape) ** 0.1).astype(dtype)


def check(launch: Any, a: Any, b: Any, initial: Any, **options: Any) -> Any:
    """Compare with the loop; returns the states."""
    h = linear_scan(launch, a, b, initial, **options)
    assert h.dtype == b.dtype
    expected = oracles.linear_scan(a, b, initial, **options)
    growth = oracles.linear_scan(a, b, initial, **options, modulus=True)
    assert np.all(np.abs(h - expected) <= bound(b.dtype, steps(b.shape[-2]), growth))
    return h


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value(dtype: str, shape: str, order: int) -> None:
    """With a transition for each step, restarts, an initial state, both ways."""
    rng, size = np.random.default_rng(0), SHAPES[shape]
    a, b = transition(rng, size, dtype), numbers(rng, size, dtype)
    initial = numbers(rng, (*size[:-2], size[-1]), dtype)
    reset = rng.random(size[:-1]) < 0.05
    launch = host.HostLaunch(order)
    for reverse in (False, True):
        check(launch, a, b, initial, reset=reset, reverse=reverse)
    assert ("linear_reduce" in launch.launched) == (shape == "cut")


@pytest.mark.parametrize("shape", ["ragged", "cut"])
@pytest.mark.parametrize("form", ["(P,)", "(1, P)", "(L, P)", "(..., 1, P)"])
def test_forms_of_the_transition(form: str, shape: str) -> None:
    """Without rows or time, or one of each, and real where the drive is complex."""
    rng, size = np.random.default_rng(1), SHAPES[shape]
    *lead, L, P = size
    shapes = {"(P,)": (P,), "(1, P)": (1, P), "(L, P)": (L, P), "(..., 1, P)": (*lead, 1, P)}
    a, b = transition(rng, shapes[form], "float32"), numbers(rng, size, "complex64")
    check(host.HostLaunch(7), a, b, None, reset=None, reverse=True)
    check(host.HostLaunch(7), a, b, None, reset=rng.random(L) < 0.1, reverse=False)


def _layouts(x: Any) -> dict[str, Any]:
    wide = np.full((x.shape[0], 2 * x.shape[1], x.shape[2] + 3), np.nan, x.dtype)
    wide[:, ::2, 1:-2] = x
    return {
        "steps of two, offset by one": wide[:, ::2, 1:-2],
        "time last": np.ascontiguousarray(x.transpose(0, 2, 1)).transpose(0, 2, 1),
        "backwards": np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1],
        "real part": (x + 1j * x)[...].real,
        "one for all rows": np.broadcast_to(x[:1], x.shape),
    }


@pytest.mark.parametrize("name", list(_layouts(np.ones((2, 3, 4), "float32"))))
def test_layouts(name: str) -> None:
    """Whatever its strides and its alignment, the input is read where it lies."""
    rng, size = np.random.default_rng(2), SHAPES["ragged"]
    a = _layouts(transition(rng, size, "float32"))[name]
    b = _layouts(numbers(rng, size, "float32"))[name]
    start = _layouts(numbers(rng, (size[0], 2, size[2]), "float32"))[name][:, 1]
    reset = (rng.random((size[1], size[0])) < 0.1).T
    for x in (a, b, start):
        x.flags.writeable = False
    check(host.HostLaunch(7), a, b, start, reset=reset, reverse=False)


@pytest.mark.parametrize("length", [40, 2100])
def test_nothing_crosses_a_restart(length: int) -> None:
    """Neither NaN nor infinity, within a tile, over tiles, over segments, or from the start."""
    rng, cut = np.random.default_rng(3), length - 7
    a, b = (transition(rng, (1, length, 2), "float64") for _ in range(2))
    a[:, 3:cut], b[:, 5:cut] = np.inf, np.nan
    reset = np.arange(length) == cut
    initial = np.full((1, 2), np.nan)
    with np.errstate(invalid="ignore"):
        h = linear_scan(host.HostLaunch(7), a, b, initial, reset=reset, reverse=False)
    expected = oracles.linear_scan(a[:, cut:], b[:, cut:])
    growth = oracles.linear_scan(a[:, cut:], b[:, cut:], modulus=True)
    assert np.all(np.isnan(h[:, :cut]))
    assert np.all(np.abs(h[:, cut:] - expected) <= bound("float64", steps(7), growth))


@pytest.mark.parametrize("length", [1000, 4096])
def test_a_constant_input_does_not_drift(length: int) -> None:
    """States in float32 err by their own rounding, not by half an ulp a step."""
    a, b = np.full(2, 1 - 2.0**-14, "float32"), np.full((length, 2), 0.1, "float32")
    h = linear_scan(host.HostLaunch(), a, b, None, reset=None, reverse=False)
    expected = oracles.linear_scan(a, b)
    assert np.all(np.abs(h - expected) <= 0.51 * np.spacing(np.abs(expected).astype("float32")))


def test_empty() -> None:
    """Nothing is launched, and what comes back is memory of its own."""
    for shape in ((2, 0, 3), (0, 5, 3), (2, 5, 0)):
        b = np.ones(shape)
        h = linear_scan(host.HostLaunch(), np.ones(shape[-1]), b, None, reset=None, reverse=False)
        assert h.shape == shape
        assert h is not b


def test_segments_fill_the_device_and_are_long() -> None:
    """A sequence is cut where its channels are few, into a number that no device decides."""
    assert segments((8, 4096, 2048)) == 1
    assert segments((1, 1 << 20, 64)) == 512
    assert segments((1, 1 << 24, 1)) == 1024
    assert segments((1, 1023, 1)) == 1


def test_indices_beyond_32_bits(tmp_path: Path) -> None:
    """Steps 2^30 elements apart are found: the third lies 2^31 elements away."""
    apart = 1 << 30
    for name in ("a", "b"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(4 * (2 * apart + 2))  # no bytes on the disk
    far = [np.memmap(tmp_path / name, "float32", "r+") for name in ("a", "b")]
    a, b = (np.lib.stride_tricks.as_strided(x, (1, 3, 2), (0, 4 * apart, 4)) for x in far)
    a[...], b[...] = 0.5, [[[1, 2], [3, 4], [5, 6]]]
    launch = host.HostLaunch(boxed=False)
    h = linear_scan(launch, np.asarray(a), np.asarray(b), None, reset=None, reverse=False)
    assert h[0].tolist() == [[1, 2], [3.5, 5], [6.75, 8.5]]

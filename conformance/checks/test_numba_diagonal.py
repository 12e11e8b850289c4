"""numba's diagonal_scan of separate channels against a loop, around its chunks and blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from ssmcore_conformance import oracles
from ssmcore_numba.diagonal import CHUNKS, GROUPS, T, diagonal_scan
from ssmcore_numba.vectors import LANES

BLOCK, CHANNELS = CHUNKS * T, GROUPS * LANES
LENGTHS = [1, T - 1, T, T + 1, 4 * T, 5 * T + 3, BLOCK, BLOCK + 1, 2 * BLOCK + T + 1]
WIDTHS = [1, LANES, CHANNELS - 1, CHANNELS, CHANNELS + 1]
TYPES = ["float32", "float64", "complex64", "complex128"]


def system(dtype: str, shape: tuple[int, ...]) -> Any:
    """Return a, B, C (H, N), u (R, L, H) and a state (R, H, N)."""
    rows, length, channels, states = shape
    rng = np.random.default_rng(0)

    def draw(*size: int) -> Any:
        z = rng.standard_normal(size)
        return (z + 1j * rng.standard_normal(size) if "complex" in dtype else z).astype(dtype)

    a = draw(channels, states)
    a = (a / np.abs(a) * rng.uniform(0.5, 0.999, a.shape)).astype(dtype)
    u = rng.standard_normal((rows, length, channels)).astype(a.real.dtype)
    more = (draw(channels, states), draw(channels, states), u, draw(rows, channels, states))
    return [a, *more]


def through(given: Any) -> Any:
    """Return D (H,)."""
    u = given[3]
    return np.random.default_rng(1).standard_normal(u.shape[-1]).astype(u.dtype)


def run(given: Any, keep: Any, reverse: bool) -> tuple[Any, Any]:
    a, B, C, u, state = given
    return diagonal_scan(a, B, C, through(given), u, state, keep, reverse=reverse, threads=2)


def compare(given: Any, keep: Any, reverse: bool) -> None:
    """Each term is rounded in the tables, in the state and at most once by each sum it is in."""
    y, last = run(given, keep, reverse)
    restart = None if keep is None else ~keep
    options: Any = {"D": through(given), "reset": restart, "reverse": reverse}
    wanted = oracles.diagonal_scan(*given, **options)
    growth = oracles.diagonal_scan(*given, **options, modulus=True)
    roundings = 2 * T + 2 * given[0].shape[1] + 8
    for found, exact, size in zip((y, last), wanted, growth, strict=True):
        assert found.dtype == (given[3] if found is y else given[0]).dtype
        assert np.all(np.abs(found - exact) <= roundings * np.finfo(given[3].dtype).eps * size)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("length", LENGTHS)
def test_lengths(length: int, dtype: str, reverse: bool) -> None:
    compare(system(dtype, (2, length, 3, 2)), None, reverse)


@pytest.mark.parametrize("width", WIDTHS)
def test_widths(width: int) -> None:
    compare(system("complex64", (3, 2 * T + 1, width, 33)), None, False)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("step", [0, 1, T - 1, T, T + 1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_restarts(step: int, reverse: bool) -> None:
    keep = np.ones((2, 2 * BLOCK), np.bool_)
    keep[0, step], keep[1, [step, -1]] = False, False
    compare(system("complex64", (2, 2 * BLOCK, CHANNELS + 1, 3)), keep, reverse)


def test_restarts_shared_by_all_rows_at_every_distance() -> None:
    keep = np.ones((1, 200), np.bool_)
    keep[0, np.cumsum(np.arange(1, 19))] = False
    compare(system("float32", (3, 200, 2, 3)), keep, False)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("at", [*range(2 * T), BLOCK - 1, BLOCK, BLOCK + 3])
def test_no_output_before_it_knows_of_a_number_that_is_none(
    at: int, reverse: bool, bad: float
) -> None:
    given = system("complex64", (1, BLOCK + T, 2, 2))
    with_it = [x.copy() for x in given]
    with_it[3][0, at, 0] = bad
    y, z = (run(x, None, reverse)[0] for x in (given, with_it))
    before, after = slice(None, at), slice(at + 1, None)
    np.testing.assert_array_equal(*(v[0, after if reverse else before] for v in (y, z)))
    assert not np.isfinite(z[0, at, 0])
    np.testing.assert_array_equal(y[..., 1], z[..., 1])


def test_a_constant_input_does_not_drift() -> None:
    """The state settles at B / (1 - a): thousands of equal roundings may not add up."""
    length = 1 << 14
    a, B, C = (np.full((1, 1), x, np.float32) for x in (0.9999, 0.1, 1.0))
    u, start = np.ones((1, length, 1), np.float32), np.zeros((1, 1, 1), np.float32)
    y, _ = diagonal_scan(a, B, C, None, u, start, None, reverse=False, threads=1)
    wide, b = float(a[0, 0]), float(B[0, 0])
    exact = b * (1 - wide ** np.arange(1, length + 1)) / (1 - wide)
    assert np.all(np.abs(y[0, :, 0] - exact) <= 8 * np.finfo(np.float32).eps * exact)

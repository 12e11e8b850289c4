"""The selective scan in numba against a loop in float64, its derivative against torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from ssmcore_numba.selective import STEPS, selective_scan
from ssmcore_numba.selective_backward import selective_scan_backward

SHAPES = [(1, 1, 1, 1), (2, 3, 7, 2), (3, STEPS, 8, 1), (1, STEPS + 1, 33, 5), (2, 75, 131, 3)]
TYPES = ["float32", "float64"]
NAMES = ("u", "delta", "A", "B", "C", "D", "start", "keep")
Given = dict[str, Any]


def problem(shape: tuple[int, ...], dtype: str, seed: int = 0) -> Given:
    R, L, H, N = shape
    rng = np.random.default_rng(seed)
    sizes = {"u": (R, L, H), "B": (R, L, N), "C": (R, L, N), "D": (H,), "start": (R, H, N)}
    given: Given = {name: rng.standard_normal(size) for name, size in sizes.items()}
    given["delta"] = rng.exponential(0.5, (R, L, H))
    given["A"] = -rng.exponential(1.0, (H, N)) + 0.1
    given = {name: x.astype(dtype) for name, x in given.items()}
    return given | {"keep": rng.random((R, L)) > 0.2}


def loop(given: Given) -> tuple[Any, Any]:
    """The definition in float64, step by step."""
    u, delta, A, B, C, D, h, keep = (
        x if x is None or x.dtype == bool else x.astype(np.float64)
        for x in (given[name] for name in NAMES)
    )
    y = np.zeros_like(u)
    with np.errstate(all="ignore"):
        for t in range(u.shape[1]):
            if keep is not None:
                h = np.where(keep[:, t, None, None], h, 0.0)
            now = delta[:, t, :, None]
            h = np.exp(now * A) * h + now * u[:, t, :, None] * B[:, t, None, :]
            y[:, t] = np.sum(C[:, t, None, :] * h, axis=-1)
        return y if D is None else y + D * u, h


def run(given: Given, checkpoints: bool = False, threads: int = 2) -> tuple[Any, ...]:
    u, delta, A, B, C, D, start, keep = (given[name] for name in NAMES)
    return selective_scan(u, delta, A, B, C, D, start, keep, checkpoints, threads=threads)


def tolerance(given: Given) -> float:
    """Relative to the scan of moduli: one rounding of exp, input, output and sums a step kept."""
    roundings = 8 + given["A"].shape[1] + 2 * float(np.nanmax(np.abs(given["A"]))) * 8
    return float(roundings * np.finfo(given["u"].dtype).eps)


def moduli(given: Given) -> Given:
    plain = ("A", "delta", "keep")
    return {n: x if n in plain or x is None else np.abs(x) for n, x in given.items()}


def check(given: Given) -> None:
    for got, expected, size in zip(run(given), loop(given), loop(moduli(given)), strict=False):
        assert got.dtype == given["u"].dtype
        assert np.all(np.abs(got - expected) <= tolerance(given) * size + 1e-37)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_value(shape: tuple[int, ...], dtype: str) -> None:
    given = problem(shape, dtype)
    for without in ([], ["D"], ["keep"], ["D", "keep"]):
        check(given | dict.fromkeys(without))


@pytest.mark.parametrize("dtype", TYPES)
def test_error_is_that_of_a_rounding_at_the_size_of_mamba(dtype: str) -> None:
    given = problem((1, 512, 64, 16), dtype) | {"keep": None}
    given["A"] = -np.tile(np.arange(1, 17, dtype=dtype), (64, 1))
    given["delta"] = (given["delta"] * 0.05).astype(dtype)
    y, expected = run(given)[0], loop(given)[0]
    assert np.linalg.norm(y - expected) <= 2.5 * np.finfo(dtype).eps * np.linalg.norm(expected)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_slow_state_with_constant_input_does_not_drift(dtype: str) -> None:
    """2^16 equal steps, against b (1 - a^t) / (1 - a); a plain float32 state errs by 1e-3."""
    L = 65536
    ones = np.ones((1, L, 3), dtype)
    A = np.array([[-1e-3], [-1e-2], [-1.0]], dtype)
    delta = ones * np.asarray(1e-3, dtype)
    start = np.zeros((1, 3, 1), dtype)
    one = ones[..., :1]
    given = dict(zip(NAMES, (ones, delta, A, one, one, None, start, None), strict=True))
    x = np.float64(delta[0, 0, 0]) * A[:, 0].astype(np.float64)
    t = np.arange(1, L + 1)[:, None]
    expected = np.float64(delta[0, 0, 0]) * np.expm1(t * x) / np.expm1(x)
    error = np.abs(run(given)[0][0] - expected) / np.max(expected, axis=0)
    assert np.max(error) <= 4 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", TYPES)
def test_every_exponent(dtype: str) -> None:
    """One step from 1 is exp(delta A): zero, tiny, the whole range, beyond it, infinite, NaN."""
    info = np.finfo(dtype)
    low, high = np.log(float(info.tiny)), np.log(float(info.max))
    exponents = np.linspace(low, high, 4001)[1:-1]
    small = np.concatenate([[0.0], np.logspace(-30, -1, 500), -np.logspace(-30, -1, 500)])
    x = np.concatenate([exponents, small]).astype(dtype)
    got = _exponentials(x)
    expected = np.exp(x.astype(np.float64))
    allowed = (1.5 + 2 * np.abs(x)) * info.eps * expected
    assert np.all(np.abs(got - expected) <= allowed + info.tiny)
    assert np.all(got[x == 0] == 1)
    beyond = np.array([-2000, -np.inf, 2000, np.inf, np.nan], dtype)
    np.testing.assert_array_equal(_exponentials(beyond), np.array([0, 0, np.inf, np.inf, np.nan]))


def _exponentials(x: Any) -> Any:
    H, dtype = x.size, x.dtype
    zeros, one = np.zeros((1, 1, H), dtype), np.ones((1, 1, 1), dtype)
    given = {"u": zeros, "delta": zeros + 1, "A": x[:, None], "B": one, "C": one}
    start = np.ones((1, H, 1), dtype)
    return run(given | {"D": None, "start": start, "keep": None})[0][0, 0]


@pytest.mark.parametrize("dtype", TYPES)
def test_states_overflow_as_ieee_says(dtype: str) -> None:
    """A growing state becomes infinite and stays it; nothing of it passes a restart."""
    given = problem((1, 90, 20, 2), dtype)
    given["A"][:] = 3.0
    given["delta"][:] = 1.0 if dtype == "float32" else 8.0
    given["keep"][:] = np.arange(90) != 70
    for name in ("u", "B", "C", "start"):
        given[name] = np.abs(given[name])
    y, last, _ = run(given)
    assert np.all(np.isfinite(y[:, :20]))
    assert np.all(y[:, 45:70] == np.inf)
    assert np.all(np.isfinite(y[:, 70:])), "the restart"
    assert np.all(np.isfinite(last))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nothing_crosses_a_restart(bad: float) -> None:
    given = problem((2, 70, 9, 3), "float32")
    given["keep"][:] = np.arange(70) != 40
    clean, size = loop(given)[0], loop(moduli(given))[0]
    for name in ("u", "B", "C"):
        given[name][:, 10:40] = bad
    given["start"][:] = bad
    y = run(given)[0]
    assert not np.any(np.isfinite(y[:, 10:40]))
    assert np.all(np.abs(y - clean)[:, 40:] <= tolerance(given) * size[:, 40:])


def test_any_layout_and_nothing_written() -> None:
    given = problem((3, 40, 21, 4), "float32")
    expected = run(given)
    for x in given.values():
        x.flags.writeable = False
    turns: list[Any] = [np.asfortranarray, lambda x: np.repeat(x, 2, axis=-1)[..., ::2]]
    for turn in turns:
        for got, value in zip(run({n: turn(x) for n, x in given.items()}), expected, strict=True):
            assert np.array_equal(got, value)


@pytest.mark.parametrize("dtype", TYPES)
def test_same_bits_whatever_the_number_of_threads(dtype: str) -> None:
    given = problem((1, 70, 150, 4), dtype)
    results = []
    for threads in (1, 2, 5):
        y, last, saved = run(given, True, threads)
        results.append((y, last, saved, *gradient(given, saved, y, last, threads)))
    for values in zip(*results, strict=True):
        assert all(np.array_equal(values[0], x) for x in values)


def gradient(given: Given, saved: Any, dy: Any, dlast: Any, threads: int = 2) -> tuple[Any, ...]:
    u, delta, A, B, C, D, _, keep = (given[name] for name in NAMES)
    given_back = (u, delta, A, B, C, D, keep, saved, dy, dlast)
    return selective_scan_backward(*given_back, threads=threads)


def autograd(given: Given, dy: Any, dlast: Any) -> list[Any]:
    """Derivatives by torch, in float64, of the loop."""
    torch = pytest.importorskip("torch")
    kinds = [n for n in NAMES if n != "keep" and given[n] is not None]
    x = {n: torch.tensor(given[n], dtype=torch.float64, requires_grad=True) for n in kinds}
    keep, h, outputs = given["keep"], x["start"], []
    for t in range(given["u"].shape[1]):
        if keep is not None:
            h = torch.where(torch.tensor(keep[:, t, None, None]), h, 0.0)
        now = x["delta"][:, t, :, None]
        h = torch.exp(now * x["A"]) * h + now * x["u"][:, t, :, None] * x["B"][:, t, None, :]
        outputs.append((x["C"][:, t, None, :] * h).sum(-1))
    y = torch.stack(outputs, 1)
    y = y if given["D"] is None else y + x["D"] * x["u"]
    total = (y * torch.tensor(dy)).sum() + (h * torch.tensor(dlast)).sum()
    return [g.numpy() for g in torch.autograd.grad(total, [x[n] for n in kinds])]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(1)
    full = problem(shape, dtype)
    for without in ([], ["D", "keep"]):
        given = full | dict.fromkeys(without)
        y, last, saved = run(given, True)
        dy, dlast = (rng.standard_normal(x.shape).astype(dtype) for x in (y, last))
        expected = autograd(given, dy, dlast)
        got = [g for g in gradient(given, saved, dy, dlast) if g is not None]
        sizes = autograd(moduli(given), np.abs(dy), np.abs(dlast))
        eps = 8 * tolerance(given)
        for name, g, value, size in zip(NAMES, got, expected, sizes, strict=False):
            assert g.dtype == np.dtype(dtype)
            scale = np.max(np.abs(size), initial=0.0)
            assert np.all(np.abs(g - value) <= eps * scale), name


def test_derivatives_do_not_drift_either() -> None:
    """dstart and dA of a slow state after 2^14 equal steps, by their closed forms."""
    L = 2**14
    ones = np.ones((1, L, 1), np.float32)
    pole = np.float32(-1e-4)
    A, start = np.full((1, 1), pole), np.ones((1, 1, 1), np.float32)
    given = dict(zip(NAMES, (0 * ones, ones, A, ones, ones, None, start, None), strict=True))
    _, last, saved = run(given, True)
    grads = gradient(given, saved, ones, 0 * last)
    a = np.exp(np.float64(pole) * np.arange(1, L + 1))
    for got, exact in ((grads[6], a.sum()), (grads[2], (a * np.arange(1, L + 1)).sum())):
        assert abs(float(got.item()) / exact - 1) <= 8 * np.finfo(np.float32).eps

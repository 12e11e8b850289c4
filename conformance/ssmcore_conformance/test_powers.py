"""Powers of a transition against 40 digits; the Krylov table against repeated products."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest

from ssmcore import powers
from ssmcore_conformance.running import call, precision
from ssmcore_conformance.tolerances import bound, check, steps

DTYPES = ["float32", "float64"]
KINDS = ["real", "complex"]
COUNT = 13
Numbers = np.ndarray[Any, Any]
# A double-float power is rounded once: half an eps, and as much again for the trailing parts
# (13 squarings double an error of eps^2); both parts of a complex number at once: times sqrt(2).
ONE_ULP = math.sqrt(2) * 2 * 0.5


def matrix_squares(A: Any, count: int) -> list[Any]:
    """Copies: inside the library the first power may be the matrix itself."""
    return [1.0 * x for x in powers.matrix_squares(A, count)]


def krylov(A: Any, B: Any, length: int) -> Any:
    """A copy: inside the library one column alone may be a view of B."""
    return 1.0 * powers.krylov(A, B, length)


def bases(dtype: str, kind: str) -> Numbers:
    """Return transitions near the unit circle, inside it, on it, and zero."""
    modulus = np.asarray([1 - 1e-6, 1.0, 1 - 1e-3, 0.9, 0.5, 1e-3, 0.0])
    if kind == "real":
        return np.concatenate([modulus, -modulus]).astype(dtype)
    phases = np.asarray([1e-6, 0.1, 1.0, 2.0, np.pi - 1e-7, -3.0])
    return np.outer(modulus, np.exp(1j * phases)).ravel().astype(precision(dtype, kind))


def exact(a: Numbers, exponents: list[int]) -> Numbers:
    """Return a^k correctly rounded to float64, on a new first axis."""
    with mp.workdps(40):
        rows = [[complex(mp.mpc(complex(z)) ** k) for z in a] for k in exponents]
    table = np.asarray(rows)
    return table if np.iscomplexobj(a) else table.real


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_squares(ssm_backend: Any, worst: Any, dtype: str, kind: str) -> None:
    """a^(2^k) to one ulp up to k = 12, where plain squaring is off by thousands."""
    a = bases(dtype, kind)
    out = call(ssm_backend, powers.squares, a, COUNT)
    assert out.dtype == a.dtype
    expected = exact(a, [2**k for k in range(COUNT)])
    tolerance = bound(dtype, ONE_ULP, np.abs(expected))
    check(worst, "powers.squares", ssm_backend.name, a.dtype, out, expected, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 64, 65])
def test_powers(ssm_backend: Any, worst: Any, dtype: str, kind: str, length: int) -> None:
    """Within 2 log2(L) ulp, as stated."""
    a = bases(dtype, kind)
    out = call(ssm_backend, powers.powers, a, length)
    assert out.shape == (length, *a.shape)
    expected = exact(a, list(range(length))).reshape(out.shape)
    tolerance = bound(dtype, 2 * math.log2(max(2, length)), np.abs(expected))
    check(worst, "powers.powers", ssm_backend.name, a.dtype, out, expected, tolerance)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 17, 100])
def test_factored_powers(ssm_backend: Any, worst: Any, length: int) -> None:
    """Coarse times fine covers every power, both within their 2 log2(L) ulp."""
    a = bases("float64", "complex")
    coarse, fine = call(ssm_backend, powers.factored_powers, a, length)
    assert coarse.shape[0] * fine.shape[0] >= length
    table = (coarse[:, None] * fine).reshape(-1, *a.shape)[:length]
    expected = exact(a, list(range(length)))
    tolerance = bound("float64", 4 * math.log2(max(2, length)) + 2, np.abs(expected))
    name = "powers.factored_powers"
    check(worst, name, ssm_backend.name, a.dtype, table, expected, tolerance)


def contraction(dtype: str) -> Numbers:
    """Return matrices (2, 3, 3) whose modulus has row sums of at most one."""
    A = np.random.default_rng(0).standard_normal((2, 3, 3))
    return np.asarray(A / np.abs(A).sum(axis=-1).max(axis=-1)[:, None, None]).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matrix_squares(ssm_backend: Any, worst: Any, dtype: str) -> None:
    """A product of 2^k matrices of size 3 in any order: 3 2^k roundings on |A|^(2^k)."""
    A = contraction(dtype)
    for count in (0, 1, 5):
        squares = call(ssm_backend, matrix_squares, A, count)
        assert len(squares) == count
        for k, square in enumerate(squares):
            expected = np.linalg.matrix_power(A.astype(float), 2**k)
            growth = np.linalg.matrix_power(np.abs(A).astype(float), 2**k)
            tolerance = bound(dtype, steps(3 * 2**k), growth)
            name = "powers.matrix_squares"
            check(worst, name, ssm_backend.name, dtype, square, expected, tolerance)


def rotations(states: int) -> Numbers:
    """Return dense matrices (2, n, n), float32, next to rotations: by any angle, by little."""
    rng = np.random.default_rng(1)
    turn = rng.standard_normal((2, states, states))
    turn = (turn - np.swapaxes(turn, -1, -2)) / np.asarray([1, 1e3])[:, None, None]
    eye = np.eye(states)
    return np.asarray((1 - 1e-6) * np.linalg.solve(eye - turn / 2, eye + turn / 2), np.float32)


@pytest.mark.parametrize("states", [1, 4, 64])
def test_matrix_squares_in_float32(ssm_backend: Any, worst: Any, states: int) -> None:
    """Rounded once up to A^4096, where plain squaring is off by thousands of ulp.

    2^12 products drop no more than 2^-36 of the maxima of a row and a column for each of n terms.
    """
    A = rotations(states)
    out = call(ssm_backend, matrix_squares, A, COUNT)
    expected = A.astype(float)
    for k, square in enumerate(out):
        largest = np.abs(expected).max(axis=(-2, -1), keepdims=True)
        tolerance = bound("float32", 1 + 2**k * states * 2**-12, largest)
        name = "powers.matrix_squares, float32"
        check(worst, name, ssm_backend.name, "float32", square, expected, tolerance)
        expected = expected @ expected


def generators(states: int) -> tuple[Numbers, Numbers]:
    """Return dissipative matrices (2, n, n) as sums of two float32: slow, and fast in one state."""
    rng = np.random.default_rng(3)
    turn = rng.standard_normal((2, states, states))
    X = (turn - np.swapaxes(turn, -1, -2)) / np.asarray([1, 1e3])[:, None, None]
    X = X - 1e-4 * np.eye(states)
    X[0, 0, 0] -= 100.0
    high = X.astype(np.float32)
    return high, (X - high).astype(np.float32)


@pytest.mark.parametrize("states", [1, 4, 64])
def test_cayley(ssm_backend: Any, worst: Any, states: int) -> None:
    """The residual R of a float32 inverse, squared by Newton; the rounding of what corrects it, R
    times n eps; what slices drop of it, 2^-36 of the maxima of both factors of n terms."""
    high, low = generators(states)

    def run(high: Any, low: Any) -> Any:
        (A, rest), inverse = powers.cayley((high, low))
        return A, rest, inverse

    A, rest, inverse = call(ssm_backend, run, high, low)
    eye, X = np.eye(states), high.astype(float) + low
    exact = np.linalg.inv(eye - X)
    sizes = np.abs(eye - X), np.abs(exact)
    sum_of_n = states * np.finfo(np.float32).eps
    residual = sum_of_n * sizes[0] @ sizes[1]
    dropped = sizes[0].max(axis=-1, keepdims=True) * sizes[1].max(axis=-2, keepdims=True)
    more = residual @ residual + sum_of_n * residual + states * 2.0**-35 * dropped
    tolerance = 2 * sizes[1] @ more
    out, expected = A.astype(float) + rest, exact @ (eye + X)
    check(worst, "powers.cayley", ssm_backend.name, "float32", out, expected, tolerance)
    rounded = bound("float32", 1, np.abs(exact)) + tolerance
    check(worst, "powers.cayley, inverse", ssm_backend.name, "float32", inverse, exact, rounded)


@pytest.mark.parametrize("states", [1, 4, 64])
def test_matrix_squares_of_two_parts(ssm_backend: Any, worst: Any, states: int) -> None:
    """As those of one part: what float32 cuts off A would be a thousand times as much in A^4096."""
    X = sum(x.astype(float) for x in generators(states))
    wide = np.linalg.solve(np.eye(states) - X, np.eye(states) + X)
    A = wide.astype(np.float32)
    low = (wide - A).astype(np.float32)

    def run(A: Any, low: Any) -> Any:
        return [1.0 * x for x in powers.matrix_squares(A, COUNT, low)]

    expected = A.astype(float) + low
    for k, square in enumerate(call(ssm_backend, run, A, low)):
        largest = np.abs(expected).max(axis=(-2, -1), keepdims=True)
        tolerance = bound("float32", 1 + 2**k * states * 2**-12, largest)
        name = "powers.matrix_squares of two parts"
        check(worst, name, ssm_backend.name, "float32", square, expected, tolerance)
        expected = expected @ expected


@pytest.mark.parametrize("states", [1, 4, 64])
def test_accurate_product(ssm_backend: Any, worst: Any, states: int) -> None:
    """A x as two numbers: n terms, each factor without what is below 2^-36 of the maxima."""
    A = rotations(states)
    x = np.random.default_rng(2).standard_normal((3, 2, states)).astype(np.float32)

    def run(A: Any, x: Any) -> Any:
        return powers.accurate_product(A)(x)

    high, low = call(ssm_backend, run, A, x)
    expected = (A.astype(float) @ x[..., None].astype(float))[..., 0]
    size = np.abs(A).max(axis=-1) * np.abs(x).max(axis=-1, keepdims=True)
    out = high.astype(float) + low.astype(float)
    tolerance = 2 * 2.0**-36 * states * size + np.finfo(np.float32).eps ** 2 * np.abs(expected)
    name = "powers.accurate_product"
    check(worst, name, ssm_backend.name, "float32", out, expected, tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 33])
def test_krylov(ssm_backend: Any, worst: Any, dtype: str, length: int) -> None:
    """B, A B, A^2 B, ..., as repeated multiplication has them."""
    A, B = contraction(dtype), np.ones((2, 3), dtype)
    out = call(ssm_backend, krylov, A, B, length)
    assert out.shape == (2, 3, length)
    assert out.dtype == np.dtype(dtype)
    columns, sizes = [B.astype(float)], [np.abs(B).astype(float)]
    for _ in range(length - 1):
        columns.append((A.astype(float) @ columns[-1][..., None])[..., 0])
        sizes.append((np.abs(A).astype(float) @ sizes[-1][..., None])[..., 0])
    expected, growth = np.stack(columns, axis=-1), np.stack(sizes, axis=-1)
    tolerance = bound(dtype, steps(3 * length), growth)
    check(worst, "powers.krylov", ssm_backend.name, dtype, out, expected, tolerance)

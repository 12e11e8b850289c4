"""diagonal_kernel against repeated multiplication."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import backend
from ssmcore.errors import SSMError
from ssmcore_conformance import oracles
from ssmcore_conformance.running import call, laid_out, precision
from ssmcore_conformance.strategies import (
    LENGTHS,
    MODULI,
    WIDTHS,
    large,
    numbers,
    transition,
    tried,
)
from ssmcore_conformance.tolerances import bound, check, eps, steps

H, N = 2, 3


AXES: dict[str, Any] = {
    "width": WIDTHS,
    "states": (N, 1),
    "modulus": MODULI,
    "kind": ("real", "complex"),
    "dtype": ("float32", "float64"),
}


def compare(worst: Any, library: Any, length: int, case: dict[str, Any]) -> None:
    rng, shape = np.random.default_rng(case["seed"]), (case["width"], case["states"])
    dtype = precision(case["dtype"], case["kind"])
    a, c = transition(rng, shape, dtype, case["modulus"]), numbers(rng, shape, dtype)
    out = call(library, ssm.diagonal_kernel, a, c, length)
    assert out.dtype == np.dtype(case["dtype"])
    growth = oracles.diagonal_kernel(a, c, length, modulus=True)
    tolerance = bound(out.dtype, steps(length, shape[1]), growth)
    expected = oracles.diagonal_kernel(a, c, length)
    check(worst, "diagonal_kernel", library.name, out.dtype, out, expected, tolerance)


@pytest.mark.parametrize("length", LENGTHS)
def test_value(ssm_backend: Any, worst: Any, length: int) -> None:
    """K_l = Re sum_n c_n a_n^l, as repeated multiplication has it."""

    @tried(ssm_backend, "diagonal_kernel", length, AXES)
    def value(case: dict[str, Any]) -> None:
        compare(worst, ssm_backend, length, case)


LARGE: list[dict[str, Any]] = [
    {"kind": "complex", "dtype": "float64", "modulus": "1"},
    {"kind": "complex", "dtype": "float32", "modulus": "1 - 1e-7"},
    {"kind": "real", "dtype": "float32", "modulus": "any"},
]


def test_large_shapes(ssm_backend: Any, worst: Any) -> None:
    """Long, for many systems and with many states too."""
    for case in large(ssm_backend, LARGE):
        compare(worst, ssm_backend, case["length"], case)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_powers_do_not_drift(ssm_backend: Any, worst: Any, dtype: str) -> None:
    """|a| = 1 - 1e-6, any phase, 4096 taps: roundings grow with log L only.

    The expected powers come from a's polar form, good to eps64 (1 + L |log a|).
    """
    length, rng = 4096, np.random.default_rng(0)
    phase = np.asarray([[1e-6, 1.0, 3.0]]) * rng.choice([-1.0, 1.0], (H, N))
    a = ((1 - 1e-6) * np.exp(1j * phase)).astype(precision(dtype, "complex"))
    c = numbers(rng, (H, N), precision(dtype, "complex"))
    out = call(ssm_backend, ssm.diagonal_kernel, a, c, length)
    log_a = np.log(a.astype(complex))
    powers = np.exp(np.arange(length)[:, None, None] * log_a)
    expected = np.real((c * powers).sum(axis=-1))
    growth = np.abs(c).sum(axis=-1) * np.ones((length, 1))
    own = eps("float64") * (1 + length * np.abs(log_a).max()) * growth
    tolerance = bound(dtype, steps(0, int(4 * math.log2(length)) + N), growth) + own
    name = "diagonal_kernel, |a| = 1 - 1e-6"
    check(worst, name, ssm_backend.name, dtype, out, expected, tolerance)


def test_layouts_in_memory(ssm_backend: Any) -> None:
    """Strided, transposed, flipped and read-only input gives the same output."""
    rng = np.random.default_rng(0)
    a, c = transition(rng, (H, N), "complex128"), numbers(rng, (H, N), "complex128")
    usual = call(ssm_backend, ssm.diagonal_kernel, a, c, 7)
    limit = bound("float64", steps(7, N), np.abs(usual).max())
    for name, out in laid_out(ssm_backend, ssm.diagonal_kernel, a, c, 7):
        assert np.all(np.abs(out - usual) <= limit), name


one = np.ones
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a": ({"a": one(N)}, r"a has shape \(3,\); expected \(H, N\)"),
    "coefficients": ({"coefficients": one((H, 1))}, r"coefficients has shape \(2, 1\); .*\(2, 3\)"),
    "negative": ({"length": -1}, "length is -1; expected a whole number of steps"),
    "fraction": ({"length": 2.5}, "length is 2.5; expected a whole number of steps"),
    "mixed": ({"a": one((H, N), np.float32)}, "got a float32, coefficients float64"),
    "complex": ({"coefficients": one((H, N), complex)}, "coefficients has dtype complex128"),
    "integer": ({"a": one((H, N), int)}, "a has dtype int64; expected one of float32"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_errors(ssm_backend: Any, wrong: str) -> None:
    """What does not fit is refused with one clear error."""
    changes, message = BAD[wrong]
    given = {"a": one((H, N)), "coefficients": one((H, N)), "length": 4} | changes
    with pytest.raises(SSMError, match=f"diagonal_kernel: .*{message}"):
        call(ssm_backend, ssm.diagonal_kernel, **given)


def test_mixed_libraries(ssm_backend: Any) -> None:
    """Arrays of two libraries are refused."""
    other = "numpy" if ssm_backend.name != "numpy" else "array_api_strict"
    a = backend.load(other).from_numpy(one((H, N)))
    with pytest.raises(SSMError, match=r"arrays of one library.*got.*move them together"):
        ssm.diagonal_kernel(a, ssm_backend.from_numpy(one((H, N))), 3)

"""short_convolution against a sliding window: taps, bias, state, chunks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ssmcore as ssm
from ssmcore import backend
from ssmcore.errors import SSMError
from ssmcore_conformance import oracles
from ssmcore_conformance.running import call, laid_out
from ssmcore_conformance.strategies import BATCHES, LENGTHS, WIDTHS, cuts, large, numbers, tried
from ssmcore_conformance.tolerances import bound, check, steps

H = 2
PLAIN = {"dtype": "float64", "batch": (2,), "taps": 4, "bias": True, "state": True, "width": H}


def problem(seed: int, length: int, case: dict[str, Any]) -> list[Any]:
    """Return u, weight, bias and state of one case, in NumPy."""
    rng = np.random.default_rng(seed)
    dtype, batch, taps, H = (case[name] for name in ("dtype", "batch", "taps", "width"))
    return [
        numbers(rng, (*batch, length, H), dtype),
        numbers(rng, (taps, H), dtype),
        numbers(rng, (H,), dtype) if case["bias"] else None,
        numbers(rng, (*batch, taps - 1, H), dtype) if case["state"] else None,
    ]


def compare(worst: Any, library: Any, *given: Any) -> None:
    u, weight, *_ = given
    y, state = call(library, ssm.short_convolution, *given)
    expected, last = oracles.short_convolution(*given)
    growth, _ = oracles.short_convolution(*given, modulus=True)
    assert y.dtype == state.dtype == u.dtype
    np.testing.assert_array_equal(state, last)
    limit = bound(y.dtype, steps(0, weight.shape[0]), growth)
    check(worst, "short_convolution", library.name, y.dtype, y, expected, limit)


AXES: dict[str, Any] = {
    "width": WIDTHS,
    "batch": BATCHES,
    "dtype": ("float32", "float64"),
    "taps": (1, 2, 4, 9),
    "bias": (True, False),
    "state": (True, False),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_value(ssm_backend: Any, worst: Any, length: int) -> None:
    """The state is the last inputs, unchanged."""

    @tried(ssm_backend, "short_convolution", length, AXES)
    def value(case: dict[str, Any]) -> None:
        compare(worst, ssm_backend, *problem(case["seed"], length, case))


LARGE: list[dict[str, Any]] = [
    {"taps": 4, "bias": True, "state": True, "dtype": "float64"},
    {"taps": 33, "bias": False, "state": True, "dtype": "float32"},
    {"taps": 2, "bias": True, "state": False, "dtype": "float32"},
]


def test_large_shapes(ssm_backend: Any, worst: Any) -> None:
    """Long, wide, with many taps and in large batches too."""
    for case in large(ssm_backend, LARGE):
        compare(worst, ssm_backend, *problem(case["seed"], case["length"], case))


@given(data=st.data())
def test_chunks_carry_the_state(ssm_eager: Any, data: Any) -> None:
    """Bit by bit: every output is the same sum."""
    u, weight, bias, state = problem(0, 13, PLAIN)
    expected, last = call(ssm_eager, ssm.short_convolution, u, weight, bias, state)
    edges, parts = data.draw(cuts(13)), []
    for start, stop in itertools.pairwise(edges):
        part = (u[:, start:stop], weight, bias, state)
        y, state = call(ssm_eager, ssm.short_convolution, *part)
        parts.append(y)
    np.testing.assert_array_equal(np.concatenate(parts, axis=-2), expected)
    np.testing.assert_array_equal(state, last)


def test_layouts_in_memory(ssm_backend: Any) -> None:
    """Strided, transposed, flipped and read-only input gives the same output."""
    given = problem(0, 7, PLAIN)
    usual = call(ssm_backend, ssm.short_convolution, *given)
    for name, out in laid_out(ssm_backend, ssm.short_convolution, *given):
        growth, _ = oracles.short_convolution(*given, modulus=True)
        assert np.all(np.abs(out[0] - usual[0]) <= bound("float64", steps(0, 4), growth)), name
        np.testing.assert_array_equal(out[1], usual[1], err_msg=name)


one = np.ones
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "u": ({"u": one(H)}, r"u has shape \(2,\); expected \(\.\.\., L, H\)"),
    "no tap": ({"weight": one((0, H))}, r"weight has shape \(0, 2\); .*K at least 1"),
    "channels": ({"weight": one((4, 3))}, r"weight has shape \(4, 3\); expected \(K, 2\)"),
    "bias": ({"bias": one(3)}, r"bias has shape \(3,\); expected \(2,\)"),
    "state": ({"state": one((2, 4, H))}, r"state has shape \(2, 4, 2\); expected \(2, 3, 2\)"),
    "mixed": ({"bias": one(H, np.float32)}, "got u float64, weight float64, bias float32"),
    "integer": ({"weight": one((4, H), int)}, "weight has dtype int64"),
    "complex": ({"weight": one((4, H), complex)}, "weight has dtype complex128"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_errors(ssm_backend: Any, wrong: str) -> None:
    """What does not fit is refused with one clear error."""
    changes, message = BAD[wrong]
    given = {"u": one((2, 5, H)), "weight": one((4, H))} | changes
    with pytest.raises(SSMError, match=f"short_convolution: .*{message}"):
        call(ssm_backend, ssm.short_convolution, **given)


def test_mixed_libraries(ssm_backend: Any) -> None:
    """Arrays of two libraries are refused."""
    other = "numpy" if ssm_backend.name != "numpy" else "array_api_strict"
    weight = backend.load(other).from_numpy(one((4, H)))
    with pytest.raises(SSMError, match=r"arrays of one library.*got.*move them together"):
        ssm.short_convolution(ssm_backend.from_numpy(one((5, H))), weight)

"""selective_scan against a loop: real and complex, shared and own B and C, resets, last state."""

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
from ssmcore_conformance.running import call, laid_out, precision
from ssmcore_conformance.strategies import (
    BATCHES,
    LENGTHS,
    RESETS,
    STEPS,
    WIDTHS,
    cuts,
    large,
    numbers,
    resets,
    tried,
)
from ssmcore_conformance.tolerances import bound, check, steps

H, N = 2, 3
FORMS = ("(..., L, N)", "(..., L, H, N)", "(..., 1, H, N)", "(1, ..., L, H, N)")
PLAIN: dict[str, Any] = {
    "batch": (2,),
    "dtype": "float64",
    "kind": "real",
    "B": FORMS[0],
    "C": FORMS[1],
    "D": True,
    "initial": True,
    "reset": "random",
    "reset_form": "(L,)",
    "width": H,
    "states": N,
    "delta": "any",
}


def problem(seed: int, length: int, case: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of one case, in NumPy."""
    rng = np.random.default_rng(seed)
    batch, real, H, N = (case[name] for name in ("batch", "dtype", "width", "states"))
    dtype = precision(real, case["kind"].split(",")[0])
    shapes = {
        FORMS[0]: (*batch, length, N),
        FORMS[1]: (*batch, length, H, N),
        FORMS[2]: (*batch, 1, H, N),
        FORMS[3]: (*([1] * len(batch)), length, H, N),
    }
    u = numbers(rng, (*batch, length, H), real)
    delta = np.asarray(rng.exponential(size=u.shape), dtype=real)
    if case["delta"] != "any":
        delta = np.full_like(delta, float(case["delta"]))
    kinds = {"B": real if case["kind"] == "complex, real B" else dtype, "C": dtype}
    z = numbers(rng, (H, N), dtype)
    A = np.asarray(z - z.real - np.exp(z.real))
    given: list[Any] = [u, delta, A, *(numbers(rng, shapes[case[k]], kinds[k]) for k in "BC")]
    given.append(numbers(rng, (H,), real) if case["D"] else None)
    initial = numbers(rng, (*batch, H, N), dtype) if case["initial"] else None
    wide = (length,) if case["reset_form"] == "(L,)" else (*batch, length)
    return given, {"initial": initial, "reset": resets(rng, case["reset"], wide)}


def roundings(given: list[Any]) -> float:
    """exp(delta A) errs by 1 + |delta A| eps: that many times the roundings of a plain step."""
    exponents = np.abs(given[1][..., None] * given[2])
    return steps(given[0].shape[-2], given[2].shape[-1]) * float(2 + np.max(exponents, initial=0.0))


def compare(worst: Any, library: Any, given: list[Any], options: dict[str, Any]) -> None:
    got = call(library, ssm.selective_scan, *given, **options, return_state=True)
    expected: Any = oracles.selective_scan(*given, **options)
    growth: Any = oracles.selective_scan(*given, **options, modulus=True)
    for name, x, value, size in zip(("", ", state"), got, expected, growth, strict=True):
        assert x.dtype == given[2 if name else 0].dtype
        tolerance = bound(x.dtype, roundings(given), size)
        check(worst, f"selective_scan{name}", library.name, x.dtype, x, value, tolerance)


AXES: dict[str, Any] = {
    "width": WIDTHS,
    "states": (N, 1),
    "delta": STEPS,
    "kind": ("real", "complex", "complex, real B"),
    "batch": BATCHES,
    "dtype": ("float32", "float64"),
    "B": FORMS,
    "C": FORMS,
    "D": (True, False),
    "initial": (True, False),
    "reset": RESETS,
    "reset_form": ("(..., L)", "(L,)"),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_value(ssm_backend: Any, worst: Any, length: int) -> None:
    """y_t and the last state of h_t = e^{delta_t A} h_{t-1} + delta_t B_t u_t are a loop's."""

    @tried(ssm_backend, "selective_scan", length, AXES)
    def value(case: dict[str, Any]) -> None:
        compare(worst, ssm_backend, *problem(case["seed"], length, case))


LARGE: list[dict[str, Any]] = [
    {"kind": "complex", "dtype": "float64", "B": FORMS[0], "C": FORMS[1], "reset": "edges"},
    {"kind": "real", "dtype": "float32", "B": FORMS[0], "C": FORMS[0], "reset": "edges"},
    {"kind": "complex", "dtype": "float32", "B": FORMS[1], "C": FORMS[0], "D": False},
    {"kind": "real", "dtype": "float64", "B": FORMS[2], "C": FORMS[3], "reset_form": "(L,)"},
]


def test_large_shapes(ssm_backend: Any, worst: Any) -> None:
    """Long, wide, with many states and in large batches too, outputs and the last state."""
    for case in large(ssm_backend, LARGE):
        full = PLAIN | {"reset": "none", "reset_form": "(..., L)"} | case
        compare(worst, ssm_backend, *problem(case["seed"], case["length"], full))


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_nothing_crosses_a_restart_not_even_nan(ssm_backend: Any, worst: Any, kind: str) -> None:
    """NaN before a restart, in u, B, C or the initial state, does not reach what comes after."""
    given, options = problem(0, 33, PLAIN | {"kind": kind, "reset": "none"})
    options["reset"] = np.arange(33) == 16
    for x in (given[0], given[3], given[4]):
        x[:, :16] = np.nan
    options["initial"][:] = np.nan
    with np.errstate(invalid="ignore"):
        got = call(ssm_backend, ssm.selective_scan, *given, **options, return_state=True)
        expected: Any = oracles.selective_scan(*given, **options)
        growth: Any = oracles.selective_scan(*given, **options, modulus=True)
    late = slice(16, None)
    for x, value, size in (
        (got[0][:, late], expected[0][:, late], growth[0][:, late]),
        (got[1], expected[1], growth[1]),
    ):
        tolerance = bound("float64", roundings(given), size)
        name = "selective_scan after NaN"
        check(worst, name, ssm_backend.name, "float64", x, value, tolerance)


@given(data=st.data())
def test_chunks_carry_the_state(ssm_eager: Any, worst: Any, data: Any) -> None:
    """Any cuts, the last state of one chunk the initial state of the next, change nothing."""
    given, options = problem(0, 33, PLAIN)
    u, delta, A, B, C, D = given
    x, reset = options["initial"], options["reset"]
    expected, _ = oracles.selective_scan(*given, initial=x, reset=reset)
    growth, _ = oracles.selective_scan(*given, initial=x, reset=reset, modulus=True)
    edges, parts = data.draw(cuts(33)), []
    for start, stop in itertools.pairwise(edges):
        now = slice(start, stop)
        part = (u[:, now], delta[:, now], A, B[:, now], C[:, now], D)
        y, x = call(
            ssm_eager, ssm.selective_scan, *part, initial=x, reset=reset[now], return_state=True
        )
        parts.append(y)
    got = np.concatenate(parts, axis=-2)
    tolerance = bound("float64", roundings(given), growth)
    name = "selective_scan in chunks"
    check(worst, name, ssm_eager.name, "float64", got, expected, tolerance)


def test_step_of_size_zero_holds_the_state(ssm_backend: Any) -> None:
    """A step of size 0 holds the state."""
    given, options = problem(0, 5, PLAIN | {"reset": "none"})
    given[1] = 0 * given[1]
    _, state = call(ssm_backend, ssm.selective_scan, *given, **options, return_state=True)
    np.testing.assert_array_equal(state, options["initial"])


def test_layouts_in_memory(ssm_backend: Any) -> None:
    """Strided, transposed, flipped and read-only input gives the same output."""
    given, options = problem(0, 7, PLAIN)
    usual = call(ssm_backend, ssm.selective_scan, *given, **options)
    for name, out in laid_out(ssm_backend, ssm.selective_scan, *given, **options):
        tolerance = bound("float64", roundings(given), np.abs(usual).max())
        assert np.all(np.abs(out - usual) <= tolerance), name


def bad(**changes: Any) -> dict[str, Any]:
    given, options = problem(0, 5, PLAIN)
    named = dict(zip(("u", "delta", "A", "B", "C", "D"), given, strict=True))
    return named | options | changes


one = np.ones
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "u": (bad(u=one(H)), r"u has shape \(2,\); expected \(\.\.\., L, H\)"),
    "delta": (bad(delta=one((5, H))), r"delta has shape \(5, 2\); expected \(2, 5, 2\)"),
    "A": (bad(A=one((N, H))), r"A has shape \(3, 2\); expected \(H, N\) with H = 2"),
    "B": (bad(B=one((2, 5, 4))), r"B has shape \(2, 5, 4\); expected \(2, 5, 3\) or \(2, 5, 2, 3"),
    "C": (bad(C=one((2, 4, H, N))), r"C has shape \(2, 4, 2, 3\)"),
    "D": (bad(D=one(3)), r"D has shape \(3,\); expected \(2,\)"),
    "initial": (bad(initial=one((H, N))), r"initial has shape \(2, 3\); expected \(2, 2, 3\)"),
    "reset": (bad(reset=one((3, 5), bool)), r"reset has shape \(3, 5\)"),
    "reset dtype": (bad(reset=one(5)), "reset has dtype float64; expected bool"),
    "mixed": (bad(A=-one((H, N), np.float32)), "one precision expected, got .*A float32"),
    "integer": (bad(u=one((2, 5, H), int)), "u has dtype int64; expected one of float32"),
    "complex u": (bad(u=one((2, 5, H), complex)), "u has dtype complex128"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_errors(ssm_backend: Any, wrong: str) -> None:
    """What does not fit is refused with one clear error."""
    given, message = BAD[wrong]
    with pytest.raises(SSMError, match=f"selective_scan: .*{message}"):
        call(ssm_backend, ssm.selective_scan, **given)


def test_mixed_libraries(ssm_backend: Any) -> None:
    """Arrays of two libraries are refused."""
    other = "numpy" if ssm_backend.name != "numpy" else "array_api_strict"
    given = bad()
    strange = backend.load(other).from_numpy(given.pop("A"))
    rest = {name: ssm_backend.from_numpy(value) for name, value in given.items()}
    with pytest.raises(SSMError, match=r"arrays of one library.*got.*move them together"):
        ssm.selective_scan(**rest, A=strange)

"""diagonal_scan against a loop: both layouts of the system, resets, both directions, last state."""

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
    MODULI,
    RESETS,
    WIDTHS,
    cuts,
    large,
    numbers,
    resets,
    transition,
    tried,
)
from ssmcore_conformance.tolerances import bound, check, steps

H, N = 2, 3
PLAIN: dict[str, Any] = {
    "batch": (2,),
    "dtype": "float64",
    "kind": "complex",
    "form": "mixing",
    "initial": True,
    "reset": "random",
    "reset_form": "(L,)",
    "reverse": False,
    "width": H,
    "states": N,
    "modulus": "any",
    "feedthrough": True,
}


def problem(seed: int, length: int, case: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of one case, in NumPy."""
    rng = np.random.default_rng(seed)
    batch, dtype = case["batch"], precision(case["dtype"], case["kind"])
    H, N = case["width"], case["states"]
    state, b, c = ((N,), (N, H), (H, N)) if case["form"] == "mixing" else ((H, N),) * 3
    given: list[Any] = [
        transition(rng, state, dtype, case["modulus"]),
        numbers(rng, b, dtype),
        numbers(rng, c, dtype),
    ]
    given.append(numbers(rng, (*batch, length, H), case["dtype"]))
    given.append(numbers(rng, (*batch, *state), dtype) if case["initial"] else None)
    wide = (length,) if case["reset_form"] == "(L,)" else (*batch, length)
    options = {"reset": resets(rng, case["reset"], wide), "reverse": case["reverse"]}
    D = numbers(rng, (H,), case["dtype"]) if case["feedthrough"] else None
    return given, options | {"D": D}


def compare(worst: Any, library: Any, given: list[Any], options: dict[str, Any]) -> None:
    got = call(library, ssm.diagonal_scan, *given, **options, return_state=True)
    expected: Any = oracles.diagonal_scan(*given, **options)
    growth: Any = oracles.diagonal_scan(*given, **options, modulus=True)
    length = given[3].shape[-2]
    assert got[0].dtype == given[3].dtype
    for name, x, value, size in zip(("", ", state"), got, expected, growth, strict=True):
        assert x.dtype == (given[0] if name else given[3]).dtype
        terms = sum(given[2].shape)
        tolerance = bound(x.dtype, steps(length, terms), size)
        check(worst, f"diagonal_scan{name}", library.name, x.dtype, x, value, tolerance)


AXES: dict[str, Any] = {
    "width": WIDTHS,
    "states": (N, 1),
    "modulus": MODULI,
    "form": ("mixing", "separate"),
    "kind": ("complex", "real"),
    "batch": BATCHES,
    "dtype": ("float32", "float64"),
    "initial": (True, False),
    "reset": RESETS,
    "reset_form": ("(..., L)", "(L,)"),
    "reverse": (False, True),
    "feedthrough": (True, False),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_value(ssm_backend: Any, worst: Any, length: int) -> None:
    """x_t = a x_{t-1} + B u_t, y_t = Re C x_t + D u_t and the last state, as the loop has them."""

    @tried(ssm_backend, "diagonal_scan", length, AXES)
    def value(case: dict[str, Any]) -> None:
        compare(worst, ssm_backend, *problem(case["seed"], length, case))


LARGE: list[dict[str, Any]] = [
    {"form": "mixing", "kind": "complex", "dtype": "float64", "reset": "edges"},
    {"form": "separate", "kind": "complex", "dtype": "float32", "reset": "edges", "reverse": True},
    {"form": "mixing", "kind": "real", "dtype": "float32", "reverse": True},
    {"form": "separate", "kind": "real", "dtype": "float64", "reset_form": "(L,)"},
]


def test_large_shapes(ssm_backend: Any, worst: Any) -> None:
    """Long, wide, with many states and in large batches too, outputs and the last state."""
    for case in large(ssm_backend, LARGE):
        full = PLAIN | {"reset": "none", "reset_form": "(..., L)"} | case
        compare(worst, ssm_backend, *problem(case["seed"], case["length"], full))


@pytest.mark.parametrize("form", ["mixing", "separate"])
def test_nothing_crosses_a_restart_not_even_nan(ssm_backend: Any, worst: Any, form: str) -> None:
    """NaN before a restart, in u or the initial state, does not reach what comes after."""
    given, options = problem(0, 33, PLAIN | {"form": form, "reset": "none"})
    options["reset"] = np.arange(33) == 16
    given[3][:, :16], given[4][:] = np.nan, np.nan
    with np.errstate(invalid="ignore"):
        got = call(ssm_backend, ssm.diagonal_scan, *given, **options, return_state=True)
        expected: Any = oracles.diagonal_scan(*given, **options)
        growth: Any = oracles.diagonal_scan(*given, **options, modulus=True)
    late = slice(16, None)
    for x, value, size in (
        (got[0][:, late], expected[0][:, late], growth[0][:, late]),
        (got[1], expected[1], growth[1]),
    ):
        tolerance = bound("float64", steps(17, H + N), size)
        name = "diagonal_scan after NaN"
        check(worst, name, ssm_backend.name, "float64", x, value, tolerance)


@given(data=st.data())
def test_chunks_carry_the_state(ssm_eager: Any, worst: Any, data: Any) -> None:
    """Any cuts, the last state of one chunk the initial state of the next, change nothing."""
    form = data.draw(st.sampled_from(("mixing", "separate")))
    (a, B, C, u, x), options = problem(0, 33, PLAIN | {"form": form})
    expected, _ = oracles.diagonal_scan(a, B, C, u, x, **options)
    growth, _ = oracles.diagonal_scan(a, B, C, u, x, **options, modulus=True)
    edges, parts = data.draw(cuts(33)), []
    for start, stop in itertools.pairwise(edges):
        reset = options["reset"][start:stop]
        y, x = call(
            ssm_eager,
            ssm.diagonal_scan,
            *(a, B, C, u[:, start:stop], x),
            D=options["D"],
            reset=reset,
            return_state=True,
        )
        parts.append(y)
    got = np.concatenate(parts, axis=-2)
    tolerance = bound("float64", steps(33, H + N), growth)
    name = "diagonal_scan in chunks"
    check(worst, name, ssm_eager.name, "float64", got, expected, tolerance)


def test_layouts_in_memory(ssm_backend: Any) -> None:
    """Strided, transposed, flipped and read-only input gives the same output."""
    given, options = problem(0, 7, PLAIN)
    usual = call(ssm_backend, ssm.diagonal_scan, *given, **options)
    for name, out in laid_out(ssm_backend, ssm.diagonal_scan, *given, **options):
        tolerance = bound("float64", steps(7, H + N), np.abs(usual).max())
        assert np.all(np.abs(out - usual) <= tolerance), name


def bad(**changes: Any) -> dict[str, Any]:
    (a, B, C, u, x), _ = problem(0, 5, PLAIN)
    return {"a": a, "B": B, "C": C, "u": u, "initial": x} | changes


Z = np.ones((N, H), complex)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a": (bad(a=np.ones((1, H, N), complex)), r"a has shape \(1, 2, 3\); expected \(P,\) or"),
    "a rows": (bad(a=np.ones((4, N), complex)), r"a has shape \(4, 3\); .*H = 2 as in u"),
    "u": (bad(u=np.ones(H)), r"u has shape \(2,\); expected \(\.\.\., L, H\)"),
    "B": (bad(B=Z.T), r"B has shape \(2, 3\); expected \(3, 2\)"),
    "C": (bad(C=Z), r"C has shape \(3, 2\); expected \(2, 3\)"),
    "initial": (bad(initial=np.ones(N, complex)), r"initial has shape \(3,\); expected \(2, 3\)"),
    "reset": (bad(reset=np.ones(6, bool)), r"reset has shape \(6,\)"),
    "reset dtype": (bad(reset=np.ones((2, 5), int)), "reset has dtype int64; expected bool"),
    "mixed": (bad(C=Z.T.astype(np.complex64)), "one precision expected, got .*C complex64"),
    "integer": (bad(u=np.ones((2, 5, H), int)), "u has dtype int64; expected one of float32"),
    "D": (bad(D=np.ones(N)), r"D has shape \(3,\); expected \(2,\)"),
    "complex D": (bad(D=np.ones(H, complex)), "D has dtype complex128"),
    "real C": (bad(C=Z.T.real), "C has dtype float64; expected complex"),
    "complex u": (bad(u=np.ones((2, 5, H), complex)), "u has dtype complex128"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_errors(ssm_backend: Any, wrong: str) -> None:
    """What does not fit is refused with one clear error."""
    given, message = BAD[wrong]
    with pytest.raises(SSMError, match=f"diagonal_scan: .*{message}"):
        call(ssm_backend, ssm.diagonal_scan, **given)


def test_mixed_libraries(ssm_backend: Any) -> None:
    """Arrays of two libraries are refused."""
    other = "numpy" if ssm_backend.name != "numpy" else "array_api_strict"
    given = bad()
    given["u"] = backend.load(other).from_numpy(given["u"])
    rest = {k: ssm_backend.from_numpy(v) for k, v in given.items() if k != "u"}
    with pytest.raises(SSMError, match=r"arrays of one library.*got.*move them together"):
        ssm.diagonal_scan(**rest, u=given["u"])

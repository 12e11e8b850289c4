"""linear_scan against a loop: all lengths, forms of the transition, resets, both directions."""

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

P = 3
FORMS = ("(P,)", "(1, P)", "(L, P)", "(..., 1, P)", "(..., L, P)")
KINDS = (("real", "real"), ("real", "complex"), ("complex", "real"), ("complex", "complex"))
PLAIN = {"batch": (2,), "dtype": "float64", "kinds": KINDS[3], "form": "(L, P)", "initial": True}
PLAIN |= {"width": P, "modulus": "any", "reset": "random", "reset_form": "(L,)", "reverse": False}


def problem(seed: int, length: int, case: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return the arguments of one case, in NumPy."""
    rng = np.random.default_rng(seed)
    batch, dtype, P = case["batch"], case["dtype"], case["width"]
    a_dtype, b_dtype = (precision(dtype, kind) for kind in case["kinds"])
    shape = {
        "(P,)": (P,),
        "(1, P)": (1, P),
        "(L, P)": (length, P),
        "(..., 1, P)": (*batch, 1, P),
        "(..., L, P)": (*batch, length, P),
    }[case["form"]]
    a, b = (
        transition(rng, shape, a_dtype, case["modulus"]),
        numbers(rng, (*batch, length, P), b_dtype),
    )
    initial = numbers(rng, (*batch, P), str(np.result_type(a, b))) if case["initial"] else None
    wide = (length,) if case["reset_form"] == "(L,)" else (*batch, length)
    reset = resets(rng, case["reset"], wide)
    return [a, b, initial], {"reset": reset, "reverse": case["reverse"]}


def compare(worst: Any, library: Any, given: list[Any], options: dict[str, Any]) -> None:
    out = call(library, ssm.linear_scan, *given, **options)
    expected = oracles.linear_scan(*given, **options)
    assert out.dtype == np.result_type(*given[:2])
    growth = oracles.linear_scan(*given, **options, modulus=True)
    tolerance = bound(out.dtype, steps(expected.shape[-2]), growth)
    check(worst, "linear_scan", library.name, out.dtype, out, expected, tolerance)


AXES: dict[str, Any] = {
    "width": WIDTHS,
    "modulus": MODULI,
    "form": FORMS,
    "kinds": KINDS,
    "batch": BATCHES,
    "dtype": ("float32", "float64"),
    "initial": (True, False),
    "reset": RESETS,
    "reset_form": ("(..., L)", "(L,)"),
    "reverse": (False, True),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_value(ssm_backend: Any, worst: Any, length: int) -> None:
    """h_t = a_t h_{t-1} + b_t, as the loop has it, in both directions."""

    @tried(ssm_backend, "linear_scan", length, AXES)
    def value(case: dict[str, Any]) -> None:
        compare(worst, ssm_backend, *problem(case["seed"], length, case))


LARGE: list[dict[str, Any]] = [
    {"form": "(..., L, P)", "kinds": KINDS[3], "dtype": "float64", "reset": "edges"},
    {"form": "(P,)", "kinds": KINDS[1], "dtype": "float32", "reset": "edges", "reverse": True},
    {"form": "(L, P)", "kinds": KINDS[0], "dtype": "float32", "reverse": True},
    {"form": "(..., 1, P)", "kinds": KINDS[3], "dtype": "float64", "reset_form": "(L,)"},
]


def test_large_shapes(ssm_backend: Any, worst: Any) -> None:
    """Long, wide and in large batches too, h_t = a_t h_{t-1} + b_t."""
    for case in large(ssm_backend, LARGE):
        full = PLAIN | {"reset": "none", "reset_form": "(..., L)"} | case
        compare(worst, ssm_backend, *problem(case["seed"], case["length"], full))


@pytest.mark.parametrize("reverse", [False, True])
def test_nothing_crosses_a_restart_not_even_nan(
    ssm_backend: Any, worst: Any, reverse: bool
) -> None:
    """NaN and infinity before a restart, in a, b or the initial state, do not reach beyond it."""
    (a, b, h), options = problem(0, 33, PLAIN | {"reset": "none", "reverse": reverse})
    late = slice(0, 17) if reverse else slice(16, None)
    options["reset"] = np.arange(33) == 16
    early = np.ones(33, bool)
    early[late] = False
    a[early], b[0, early], b[1, early], h[:] = np.nan, np.inf, np.nan, np.nan
    with np.errstate(invalid="ignore"):
        got = call(ssm_backend, ssm.linear_scan, a, b, h, **options)[:, late]
        expected = oracles.linear_scan(a, b, h, **options)[:, late]
        growth = oracles.linear_scan(a, b, h, **options, modulus=True)[:, late]
    tolerance = bound("float64", steps(17), growth)
    name = "linear_scan after NaN"
    check(worst, name, ssm_backend.name, "float64", got, expected, tolerance)


@pytest.mark.parametrize("length", [1, 2])
def test_the_result_is_memory_of_its_own(ssm_backend: Any, length: int) -> None:
    """Whoever writes into the result leaves the input alone, after one step too."""
    b = ssm_backend.from_numpy(np.ones((length, P)))
    h = ssm.linear_scan(ssm_backend.from_numpy(np.ones(P)), b)
    try:
        h[...] = 7.0
    except TypeError:
        pytest.skip(f"{ssm_backend.name} writes into no array")
    np.testing.assert_array_equal(backend.to_numpy(b), 1.0)


@given(data=st.data())
def test_chunks_carry_the_state(ssm_eager: Any, worst: Any, data: Any) -> None:
    """Any cuts, empty chunks too: the last state of one is the initial state of the next."""
    (a, b, h), options = problem(0, 33, PLAIN)
    expected = oracles.linear_scan(a, b, h, reset=options["reset"])
    growth = oracles.linear_scan(a, b, h, reset=options["reset"], modulus=True)
    edges, parts = data.draw(cuts(33)), []
    for start, stop in itertools.pairwise(edges):
        reset = options["reset"][start:stop]
        part = call(ssm_eager, ssm.linear_scan, a[start:stop], b[:, start:stop], h, reset=reset)
        parts.append(part)
        h = part[:, -1] if stop > start else h
    got = np.concatenate(parts, axis=-2)
    tolerance = bound("float64", steps(33), growth)
    check(worst, "linear_scan in chunks", ssm_eager.name, "float64", got, expected, tolerance)


def test_layouts_in_memory(ssm_backend: Any) -> None:
    """The same numbers, strided or read-only, give the same output, and stay as they are."""
    given, options = problem(0, 7, PLAIN)
    usual = call(ssm_backend, ssm.linear_scan, *given, **options)
    for name, out in laid_out(ssm_backend, ssm.linear_scan, *given, **options):
        np.testing.assert_array_equal(out, usual, err_msg=name)


def test_constant_transition_is_the_varying_one_written_out(ssm_backend: Any, worst: Any) -> None:
    """A constant transition gives what the same one written out gives."""
    (_, b, h), _ = problem(0, 65, PLAIN)
    a = np.asarray([1.0, -1.0, np.exp(1e-6j)]) * (1 - 1e-6)
    written = np.broadcast_to(a, (65, P)).copy()
    got, expected = (call(ssm_backend, ssm.linear_scan, x, b, h) for x in (a, written))
    tolerance = bound("float64", 2 * steps(65), oracles.linear_scan(a, b, h, modulus=True))
    name = "linear_scan, |a| = 1 - 1e-6"
    check(worst, name, ssm_backend.name, "float64", got, expected, tolerance)


def bad(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    usual: dict[str, Any] = {"a": rng.uniform(size=(5, P)), "b": numbers(rng, (2, 5, P), "float64")}
    return usual | changes


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "axes": (bad(b=np.ones(P)), r"b has shape \(3,\); expected \(\.\.\., L, P\)"),
    "a longer": (bad(a=np.ones((6, P))), r"a has shape \(6, 3\); .* to match b \(2, 5, 3\)"),
    "a wider": (bad(a=np.ones(4)), r"a has shape \(4,\)"),
    "a batch": (bad(a=np.ones((3, 5, P))), r"a has shape \(3, 5, 3\)"),
    "a scalar": (bad(a=np.ones(())), r"a has shape \(\)"),
    "initial": (bad(initial=np.ones(P)), r"initial has shape \(3,\); expected \(2, 3\)"),
    "reset": (bad(reset=np.ones((2, 4), bool)), r"reset has shape \(2, 4\); expected .*\(2, 5\)"),
    "reset dtype": (bad(reset=np.ones((2, 5))), "reset has dtype float64; expected bool"),
    "mixed": (bad(a=np.ones(P, np.float32)), "one precision expected, got a float32, b float64"),
    "integer": (bad(b=np.ones((2, 5, P), int)), "b has dtype int64; expected one of float32"),
    "half": (bad(a=np.ones(P, np.float16)), "a has dtype float16; expected one of float32"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_errors(ssm_backend: Any, wrong: str) -> None:
    """What does not fit is refused with one clear error."""
    given, message = BAD[wrong]
    if wrong == "half" and not hasattr(ssm_backend.xp, "float16"):
        message, given = "a has dtype int8", given | {"a": np.ones(P, np.int8)}
    with pytest.raises(SSMError, match=f"linear_scan: .*{message}"):
        call(ssm_backend, ssm.linear_scan, **given)


def test_mixed_libraries(ssm_backend: Any) -> None:
    """Arrays of two libraries are refused."""
    other = "numpy" if ssm_backend.name != "numpy" else "array_api_strict"
    b = backend.load(other).from_numpy(np.ones((5, P)))
    with pytest.raises(SSMError, match=r"arrays of one library.*got.*move them together"):
        ssm.linear_scan(ssm_backend.from_numpy(np.ones(P)), b)

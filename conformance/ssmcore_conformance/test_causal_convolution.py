"""causal_convolution against a loop over taps: real and complex, few and many taps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import backend
from ssmcore.errors import SSMError
from ssmcore_conformance import oracles
from ssmcore_conformance.running import call, laid_out, precision
from ssmcore_conformance.strategies import BATCHES, LENGTHS, WIDTHS, large, numbers, tried
from ssmcore_conformance.tolerances import bound, check, fft

H = 2
KINDS = (("real", "real"), ("real", "complex"), ("complex", "real"), ("complex", "complex"))


def problem(seed: int, length: int, case: dict[str, Any]) -> list[Any]:
    """Return u and kernel of one case, in NumPy."""
    rng, H = np.random.default_rng(seed), case["width"]
    u_dtype, kernel_dtype = (precision(case["dtype"], kind) for kind in case["kinds"])
    taps = {"few": min(length, 3), "as many": length, "more": length + 5}[case["taps"]]
    own = case["batch"] if case["form"] == "(..., K, H)" else ()
    u = numbers(rng, (*case["batch"], length, H), u_dtype)
    return [u, numbers(rng, (*own, taps, H), kernel_dtype)]


def tolerance(u: Any, kernel: Any) -> Any:
    """The 2-norms of a channel's input and of the taps that are used."""
    length = u.shape[-2]
    used = kernel[..., :length, :]
    norms = [np.linalg.norm(x, axis=-2, keepdims=True) for x in (u, used)]
    dtype = np.result_type(u, kernel)
    return bound(dtype, fft(length + used.shape[-2]), norms[0] * norms[1])


def compare(worst: Any, library: Any, u: Any, kernel: Any) -> None:
    out = call(library, ssm.causal_convolution, u, kernel)
    assert out.dtype == np.result_type(u, kernel)
    expected, limit = oracles.causal_convolution(u, kernel), tolerance(u, kernel)
    check(worst, "causal_convolution", library.name, out.dtype, out, expected, limit)


AXES: dict[str, Any] = {
    "width": WIDTHS,
    "kinds": KINDS,
    "batch": BATCHES,
    "dtype": ("float32", "float64"),
    "taps": ("few", "as many", "more"),
    "form": ("(K, H)", "(..., K, H)"),
}


@pytest.mark.parametrize("length", LENGTHS)
def test_value(ssm_backend: Any, worst: Any, length: int) -> None:
    """y_t = sum_s k_s u_{t-s}, as a loop over taps has it."""

    @tried(ssm_backend, "causal_convolution", length, AXES)
    def value(case: dict[str, Any]) -> None:
        compare(worst, ssm_backend, *problem(case["seed"], length, case))


SHAPES = (
    {"length": 1025, "batch": (7,), "width": 33},
    {"length": 257, "batch": (2, 1, 4), "width": 129},
)
LARGE: list[dict[str, Any]] = [
    {"kinds": KINDS[0], "dtype": "float64", "taps": "as many", "form": "(K, H)"},
    {"kinds": KINDS[3], "dtype": "float32", "taps": "few", "form": "(..., K, H)"},
    {"kinds": KINDS[1], "dtype": "float32", "taps": "more", "form": "(..., K, H)"},
]


def test_large_shapes(ssm_backend: Any, worst: Any) -> None:
    """Long, wide, with many taps and in large batches too."""
    for case in large(ssm_backend, LARGE, SHAPES):
        compare(worst, ssm_backend, *problem(case["seed"], case["length"], case))


def test_later_inputs_do_not_reach_earlier_outputs(ssm_backend: Any, worst: Any) -> None:
    """Zero up to the first input, to rounding: the transform must be padded."""
    rng = np.random.default_rng(0)
    u, kernel = np.zeros((33, H)), rng.standard_normal((33, H))
    u[20:] = rng.standard_normal((13, H))
    out = call(ssm_backend, ssm.causal_convolution, u, kernel)
    error, limit = np.abs(out[:20]).max(), float(tolerance(u, kernel).min())
    worst("causal_convolution, causality", ssm_backend.name, "float64", error, limit)
    assert error <= limit
    assert np.all(np.abs(out[20]) > limit)


def test_one_tap_is_a_product_and_a_pulse_returns_the_kernel(ssm_backend: Any, worst: Any) -> None:
    """One tap is a product; a pulse returns the kernel."""
    kernel = np.random.default_rng(0).standard_normal((31, H))
    pulse = np.zeros((31, H))
    pulse[0] = 1
    for u, taps, expected in ((pulse, kernel, kernel), (kernel, pulse[:1], kernel)):
        out = call(ssm_backend, ssm.causal_convolution, u, taps)
        limit = tolerance(u, taps)
        name = "causal_convolution, pulse"
        check(worst, name, ssm_backend.name, "float64", out, expected, limit)


def test_layouts_in_memory(ssm_backend: Any) -> None:
    """Strided, transposed, flipped and read-only input gives the same output."""
    u, kernel = problem(
        0,
        7,
        {
            "kinds": KINDS[1],
            "dtype": "float64",
            "taps": "few",
            "width": H,
            "form": "",
            "batch": (2,),
        },
    )
    usual, limit = call(ssm_backend, ssm.causal_convolution, u, kernel), tolerance(u, kernel)
    for name, out in laid_out(ssm_backend, ssm.causal_convolution, u, kernel):
        assert np.all(np.abs(out - usual) <= limit), name


one = np.ones
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "u": ({"u": one(H)}, r"u has shape \(2,\); expected \(\.\.\., L, H\)"),
    "channels": ({"kernel": one((5, 3))}, r"kernel has shape \(5, 3\); expected .*H = 2"),
    "one channel": ({"kernel": one((5, 1))}, r"kernel has shape \(5, 1\)"),
    "axes": ({"kernel": one(H)}, r"kernel has shape \(2,\)"),
    "batch": ({"kernel": one((3, 5, H))}, r"kernel has shape \(3, 5, 2\)"),
    "mixed": ({"kernel": one((5, H), np.float32)}, "got u float64, kernel float32"),
    "integer": ({"kernel": one((5, H), int)}, "kernel has dtype int64; expected one of float32"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_errors(ssm_backend: Any, wrong: str) -> None:
    """What does not fit is refused with one clear error."""
    changes, message = BAD[wrong]
    given = {"u": one((2, 5, H)), "kernel": one((5, H))} | changes
    with pytest.raises(SSMError, match=f"causal_convolution: .*{message}"):
        call(ssm_backend, ssm.causal_convolution, **given)


def test_mixed_libraries(ssm_backend: Any) -> None:
    """Arrays of two libraries are refused."""
    other = "numpy" if ssm_backend.name != "numpy" else "array_api_strict"
    kernel = backend.load(other).from_numpy(one((5, H)))
    with pytest.raises(SSMError, match=r"arrays of one library.*got.*move them together"):
        ssm.causal_convolution(ssm_backend.from_numpy(one((5, H))), kernel)

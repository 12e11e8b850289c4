"""dplr_kernel against powers of the dense matrix on all conjugate states, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import backend
from ssmcore.errors import SSMError
from ssmcore_conformance import oracles
from ssmcore_conformance.running import call, laid_out, precision
from ssmcore_conformance.strategies import LENGTHS, large, numbers, tried
from ssmcore_conformance.tolerances import bound, check, steps

H = 2
Numbers = np.ndarray[Any, Any]
DAMPING = {"any": 1.0, "little": 1e-9, "none": 0.0, "nothing moves": 0.0}
"""Factors on Re Lambda; with "nothing moves" Lambda = 0, the pole on the node omega = 1."""


def problem(seed: int, case: dict[str, Any]) -> list[Any]:
    """Return dt, Lambda, P, B, C: Re Lambda <= 0, so that A is dissipative."""
    rng, H = np.random.default_rng(seed), case.get("width", 2)
    dtype, n = precision(case["dtype"], "complex"), case["states"]
    dt = np.exp(rng.uniform(-5, 0, H)).astype(case["dtype"])
    damping = -np.exp(rng.standard_normal((H, n))) * DAMPING[case.get("damping", "any")]
    phases = rng.standard_normal((H, n)) * (case.get("damping") != "nothing moves")
    Lambda = (damping + 5j * phases).astype(dtype)
    P = numbers(rng, (case["rank"], H, n), dtype)
    return [dt, Lambda, P, numbers(rng, (H, n), dtype), numbers(rng, (H, n), dtype)]


def growth(given: list[Any], length: int) -> Numbers:
    """|C| mean_j |(I - A_bar omega_j)^-1| |B_bar| e per system, in 2-norms.

    A tap is the mean over nodes of radius e^(-1/L), where an inverse is at most L large; with and
    without the low-rank part: the kernel is the difference of the two terms of the Woodbury
    identity; e is what the last tap was made smaller by. |A_bar| <= 1, so powers add eps a step.
    """
    dt, Lambda, P, B, C = given
    nodes = np.exp((-1 - 2j * np.pi * np.arange(length)) / length)
    sizes = []
    for rank in (0, P.shape[0]):
        A_bar, B_bar = oracles.dplr_matrices(dt, Lambda, P[:rank], B)
        eye = np.eye(A_bar.shape[-1])
        inverse = np.linalg.inv(eye - nodes[:, None, None, None] * A_bar)
        norms = np.linalg.norm(inverse, 2, axis=(-2, -1)).mean(axis=0)
        sizes.append(norms * np.linalg.norm(B_bar, axis=-1))
    return np.asarray(2 * np.e * np.linalg.norm(C, axis=-1) * np.max(sizes, axis=0))


def compare(worst: Any, library: Any, given: list[Any], length: int) -> None:
    dt, Lambda, P, B, C = given
    out = call(library, ssm.dplr_kernel, *given, length)
    assert out.dtype == dt.dtype
    expected = oracles.dplr_kernel(dt, Lambda, P, B, C, length)
    size = growth(given, length) if length else np.zeros(len(dt))
    tolerance = bound(out.dtype, steps(length, 2 * Lambda.shape[-1]), size)
    check(worst, "dplr_kernel", library.name, out.dtype, out, expected, tolerance)


AXES: dict[str, Any] = dict(
    rank=(0, 1, 2), states=(1, 2, 3), dtype=("float64", "float32"), damping=tuple(DAMPING)
)


@pytest.mark.parametrize("length", LENGTHS)
def test_value(ssm_backend: Any, worst: Any, length: int) -> None:
    """Even and odd lengths: omega = -1 is a node of the even ones."""

    @tried(ssm_backend, "dplr_kernel", length, AXES)
    def value(case: dict[str, Any]) -> None:
        compare(worst, ssm_backend, problem(case["seed"], case), length)


SHAPES = (
    {"length": 1025, "width": 33, "states": 1},
    {"length": 257, "width": 3, "states": 17},
)
LARGE = [{"rank": 1, "dtype": "float64"}, {"rank": 2, "dtype": "float32"}]


def test_large_shapes(ssm_backend: Any, worst: Any) -> None:
    """Long, for many systems and with many states too."""
    for case in large(ssm_backend, LARGE, SHAPES):
        compare(worst, ssm_backend, problem(case["seed"], case), case["length"])


def test_rank_zero_is_a_diagonal_kernel(ssm_backend: Any, worst: Any) -> None:
    """Without a low-rank term it is the kernel of the diagonal system."""
    given = problem(0, {"rank": 0, "states": 3, "dtype": "float64"})
    dt, Lambda, _, B, C = given
    half = dt[:, None] / 2 * Lambda
    a, gain = (1 + half) / (1 - half), dt[:, None] / (1 - half)
    expected = call(ssm_backend, ssm.diagonal_kernel, a, 2 * C * gain * B, 64)
    out = call(ssm_backend, ssm.dplr_kernel, *given, 64)
    tolerance = bound("float64", steps(64, 6), growth(given, 64))
    name = "dplr_kernel of rank 0"
    check(worst, name, ssm_backend.name, "float64", out, expected, tolerance)


def test_shorter_kernels_are_the_start_of_longer_ones(ssm_backend: Any, worst: Any) -> None:
    """C is the true output vector, whatever the length."""
    given = problem(1, {"rank": 1, "states": 3, "dtype": "float64"})
    longest = call(ssm_backend, ssm.dplr_kernel, *given, 65)
    tolerance = bound("float64", steps(65, 6), growth(given, 65))
    for length in (1, 2, 33, 64):
        out = call(ssm_backend, ssm.dplr_kernel, *given, length)
        name = "dplr_kernel, other length"
        check(worst, name, ssm_backend.name, "float64", out, longest[:length], tolerance)


def test_layouts_in_memory(ssm_backend: Any) -> None:
    """Strided, transposed, flipped and read-only input gives the same output."""
    given = problem(2, {"rank": 2, "states": 3, "dtype": "float64"})
    usual = call(ssm_backend, ssm.dplr_kernel, *given, 7)
    tolerance = bound("float64", steps(7, 6), growth(given, 7))
    for name, out in laid_out(ssm_backend, ssm.dplr_kernel, *given, 7):
        assert np.all(np.abs(out - usual) <= tolerance), name


Z = np.ones((H, 3), complex)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "Lambda": ({"Lambda": Z[0]}, r"Lambda has shape \(3,\); expected \(H, N\)"),
    "dt": ({"dt": np.ones(3)}, r"dt has shape \(3,\); expected \(2,\)"),
    "P": ({"P": Z}, r"P has shape \(2, 3\); expected \(r, 2, 3\)"),
    "B": ({"B": Z[:, :2]}, r"B has shape \(2, 2\); expected \(2, 3\)"),
    "C": ({"C": Z.T}, r"C has shape \(3, 2\); expected \(2, 3\)"),
    "length": ({"length": -3}, "length is -3; expected a whole number"),
    "mixed": ({"dt": np.ones(2, np.float32)}, "got dt float32, Lambda complex128"),
    "integer": ({"dt": np.ones(2, int)}, "dt has dtype int64; expected one of float32"),
    "complex dt": ({"dt": np.ones(2, complex)}, "dt has dtype complex128; expected real"),
    "real Lambda": ({"Lambda": -np.ones((H, 3))}, "Lambda has dtype float64; expected complex"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_errors(ssm_backend: Any, wrong: str) -> None:
    """What does not fit is refused with one clear error."""
    changes, message = BAD[wrong]
    usual = {"dt": np.ones(2), "Lambda": -Z, "P": Z[None], "B": Z, "C": Z, "length": 4}
    with pytest.raises(SSMError, match=f"dplr_kernel: .*{message}"):
        call(ssm_backend, ssm.dplr_kernel, **(usual | changes))


def test_mixed_libraries(ssm_backend: Any) -> None:
    """Arrays of two libraries are refused."""
    other = "numpy" if ssm_backend.name != "numpy" else "array_api_strict"
    dt = backend.load(other).from_numpy(np.ones(2))
    Lambda, P, B = (ssm_backend.from_numpy(x) for x in (-Z, Z[None], Z))
    with pytest.raises(SSMError, match=r"arrays of one library.*got.*move them together"):
        ssm.dplr_kernel(dt, Lambda, P, B, B, length=4)

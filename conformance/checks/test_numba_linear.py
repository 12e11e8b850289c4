"""numba's linear_scan in pieces of time: bit for bit as in one piece, and as a loop has it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from ssmcore_conformance import oracles
from ssmcore_numba.linear import (
    FEWEST,
    FIRST_MARK,
    SHORTEST,
    _adjoint,
    _cuts,
    _scan,
    linear_scan,
    linear_scan_backward,
)
from ssmcore_numba.vectors import LANES

CHANNELS = LANES + 3
LENGTH = max(2 * SHORTEST, -(-2 * FEWEST // CHANNELS)) + 3
CUT = LENGTH // 2
ONCE = float(np.finfo(np.float32).eps)  # twice what rounding a double to float32 moves it by
TYPES = ["float32", "float64", "complex64", "complex128"]


def problem(dtype: str, modulus: tuple[float, float], channels: int = CHANNELS) -> list[Any]:
    """Return a, b, a cotangent (1, LENGTH, P), and the state before, which counts."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> Any:
        z = rng.standard_normal(shape)
        return (z + 1j * rng.standard_normal(shape) if "complex" in dtype else z).astype(dtype)

    a, b, g = (draw(1, LENGTH, channels) for _ in range(3))
    size = rng.uniform(*modulus, a.shape)
    return [(a / np.abs(a) * size).astype(dtype), b, g, 100 * draw(1, channels)]


def both(given: list[Any], keep: Any, reverse: bool, threads: int) -> tuple[Any, ...]:
    """Return the states and all gradients."""
    a, b, g, start = given
    h = linear_scan(a, b, start, keep, reverse=reverse, threads=threads)
    return h, *linear_scan_backward(a, h, g, start, keep, reverse=reverse, threads=threads)


def compare(given: list[Any], keep: Any = None, reverse: bool = False) -> tuple[Any, ...]:
    """Return what two threads give, and see that one and three give the same."""
    assert _cuts(given[1].shape, 2)[2] == 2
    found = both(given, keep, reverse, 2)
    for threads in (1, 3):
        for x, y in zip(found, both(given, keep, reverse, threads), strict=True):
            np.testing.assert_array_equal(x, y)
    return found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("modulus", [(0.5, 0.9), (0.9, 1.0), (1.0, 1.0), (1.0, 1.001)])
@pytest.mark.parametrize("dtype", TYPES)
def test_it_is_the_loop(dtype: str, modulus: tuple[float, float], reverse: bool) -> None:
    """Whether the past fades soon, late, never, or grows."""
    given = problem(dtype, modulus)
    h, *_ = compare(given, None, reverse)
    a, b, _, start = given
    exact = oracles.linear_scan(a[0], b, start, reverse=reverse)
    growth = oracles.linear_scan(a[0], b, start, reverse=reverse, modulus=True)
    steps = LENGTH if np.finfo(dtype).bits == 64 else 1  # else each is rounded once
    bound = (2 + 4 * steps) * np.finfo(dtype).eps * growth
    assert np.all(np.abs(h - exact) <= bound)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "step", [0, CUT - 1, CUT, CUT + 1, CUT + FIRST_MARK - 1, CUT + FIRST_MARK, LENGTH - 1]
)
def test_restarts_around_the_cut(step: int, reverse: bool) -> None:
    keep = np.ones((1, LENGTH), np.bool_)
    keep[0, LENGTH - 1 - step if reverse else step] = False
    given = problem("complex64", (1.0, 1.0))
    h, da, G, _ = compare(given, keep, reverse)
    a, b, g, start = given
    exact = oracles.linear_scan(a[0], b, start, reset=~keep, reverse=reverse)
    assert np.all(np.abs(h - exact) <= ONCE * (1 + np.abs(exact)))
    assert np.all(da[~keep] == 0)
    moved = np.roll(a[0] * keep[0, :, None], 1 if reverse else -1, axis=0).conj()
    again = oracles.linear_scan(moved, g, None, reverse=not reverse)
    assert np.all(np.abs(G - again) <= ONCE * (1 + np.abs(again)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("at", [0, CUT - 1, CUT, CUT + 7, LENGTH - 1])
@pytest.mark.parametrize("which", ["a", "b", "cotangent"])
def test_what_is_no_number_goes_as_far_as_in_one_piece(which: str, at: int, bad: float) -> None:
    given = problem("float32", (0.5, 0.9))
    given[("a", "b", "cotangent").index(which)][0, at, 5] = bad
    with np.errstate(invalid="ignore"):
        compare(given)


def test_a_transition_of_zero_before_an_infinite_state() -> None:
    """0 times infinity is NaN, whichever piece finds out."""
    given = problem("float32", (0.5, 0.9))
    given[1][0, CUT - 1, 0], given[0][0, CUT, 0] = np.inf, 0
    h, *_ = compare(given)
    assert np.isnan(h[0, CUT, 0])


def test_zeros_have_the_sign_they_have_in_one_piece() -> None:
    """A sequence of -0 stays one, though a piece that begins at zero makes +0 of it."""
    given = problem("float32", (1.0, 1.0))
    given[0][:], given[1][:], given[3][:] = 1, -0.0, -0.0
    h, *_ = compare(given)
    assert np.all(np.signbit(h))


def test_states_that_never_meet() -> None:
    """With a = 1 and inputs of zero, the second piece keeps what the first one ended with."""
    given = problem("float32", (0.5, 0.9))
    given[0][:], given[1][:] = 1, 0
    h, *_ = compare(given)
    np.testing.assert_array_equal(h, np.broadcast_to(given[3][:, None], h.shape))


def test_the_gradient_of_a_constant_transition_is_one_sum() -> None:
    a, b, g, start = problem("complex64", (0.9, 0.99))
    _, da, *_ = compare([a[:, :1], b, g, start])
    full = both([np.broadcast_to(a[:, :1], b.shape), b, g, start], None, False, 2)[1]
    exact = full.astype(np.complex128).sum(axis=1)
    assert np.all(np.abs(da[:, 0] - exact) <= ONCE * np.abs(full).sum(axis=1))


@pytest.mark.parametrize("channels", [1, LANES - 1, LANES, 300])
def test_parts_and_pieces_of_any_width(channels: int) -> None:
    given = problem("float32", (0.9, 1.0), channels)
    found = [both(given, None, False, threads) for threads in (1, 2, 5)]
    for other in found[1:]:
        for x, y in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(x, y)


def test_torch_s_gradients_do_not_depend_on_the_threads() -> None:
    torch = pytest.importorskip("torch")
    import ssmcore as ssm

    a, b, g, start = (torch.from_numpy(x) for x in problem("complex64", (0.9, 1.0)))
    leaves = [x.requires_grad_() for x in (a[0], b, start)]
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            h = ssm.linear_scan(*leaves)
            found.append([h.detach(), *torch.autograd.grad(h, leaves, g)])
    finally:
        torch.set_num_threads(before)
    for x, y in zip(*found, strict=True):
        assert torch.equal(x, y)


ALLOWED = """
import numba
import numpy as np
import torch
from ssmcore_numba._jobs import threads_allowed

import ssmcore as ssm

torch.set_num_threads(1)
assert torch.get_num_threads() == 1  # which has it set at once
x = np.full((1, 65536, 4), 0.5, np.float32)
ssm.linear_scan(x, x)
assert (torch.get_num_threads(), threads_allowed()) == (1, 3)
numba.set_num_threads(2)
assert threads_allowed() == 2
"""


def test_numba_s_number_of_threads_is_asked_and_torch_s_left_alone() -> None:
    """Numba's own answer starts its threads, and then OpenMP's number, torch's too, is numba's."""
    pytest.importorskip("torch")
    environment = {**os.environ, "NUMBA_NUM_THREADS": "3"}
    run = subprocess.run(
        [sys.executable, "-c", ALLOWED], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr


def test_torch_maps_over_resets_alone() -> None:
    torch = pytest.importorskip("torch")
    import ssmcore as ssm

    a, b = torch.full((3,), 0.5), torch.ones(6, 3).cumsum(0)
    resets = torch.tensor([[False] * 6, [False, False, True] * 2])
    torch._C._functorch._set_vmap_fallback_enabled(False)  # which runs the operator in a loop
    try:
        found = torch.func.vmap(lambda reset: ssm.linear_scan(a, b, reset=reset))(resets)
    finally:
        torch._C._functorch._set_vmap_fallback_enabled(True)
    for h, reset in zip(found, resets, strict=True):
        assert torch.equal(h, ssm.linear_scan(a, b, reset=reset))


def test_what_may_be_written_compiles_nothing_anew() -> None:
    """A type of array is one more kernel to numba, of which each takes seconds."""
    a, b, g, start = problem("float32", (0.5, 0.9), LANES)
    keep = np.ones(b.shape[:2], np.bool_)
    both([a, b, g, start], keep, False, 1)
    compiled = [len(kernel.signatures) for kernel in (_scan, _adjoint)]
    for x in (a, g, start, keep):
        x.flags.writeable = False
    both([a, b, g, start], keep, False, 1)
    assert [len(kernel.signatures) for kernel in (_scan, _adjoint)] == compiled

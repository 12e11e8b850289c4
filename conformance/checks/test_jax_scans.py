"""What only JAX's own scans promise: derivatives of derivatives, and memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm

jax = pytest.importorskip("jax")


def temporary(fn: Any, *shapes: tuple[tuple[int, ...], str]) -> int:
    """Return the bytes that ``fn``, compiled, takes beside its arguments and results."""
    given = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in shapes]
    found: int = jax.jit(fn).lower(*given).compile().memory_analysis().temp_size_in_bytes
    return found


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("form", ["(P,)", "(L, P)"])
def test_second_derivative(form: str, reverse: bool) -> None:
    """sum_t h_t = sum_k (L - k) a^k for b = 1: its second derivative by a is known."""
    L, a = 40, np.float32(0.75)
    b = np.ones((L, 1), np.float32)

    def total(a: Any) -> Any:
        spread = jax.numpy.full((1,) if form == "(P,)" else (L, 1), a)
        return ssm.linear_scan(spread, jax.numpy.asarray(b), reverse=reverse).sum()

    found = float(jax.jit(jax.grad(jax.grad(total)))(a))
    forward = float(jax.jit(jax.jvp, static_argnums=0)(jax.grad(total), (a,), (a / a,))[1])
    terms = [(L - k) * k * (k - 1) * float(a) ** (k - 2) for k in range(2, L)]
    allowed = 4 * L * float(np.finfo(np.float32).eps) * math.fsum(terms)
    assert abs(found - math.fsum(terms)) <= allowed
    assert abs(forward - math.fsum(terms)) <= allowed


def test_memory_of_selective_scan() -> None:
    """Forward and backward take at most an eighth of all states as they are carried.

    D u is part of what a chunk does, and with it costs no array of the length of the sequence.
    """
    B, L, H, N = 1, 2048, 768, 16
    wide, state = ((B, L, H), "float32"), ((B, L, N), "float32")

    def both(g: Any, *given: Any) -> Any:
        y, pull = jax.vjp(ssm.selective_scan, *given)
        return y, pull(g)

    given = (wide, wide, ((H, N), "float32"), state, state)
    found = temporary(both, wide, *given, ((H,), "float32"))
    carried = 8 if jax.config.jax_enable_x64 else 4
    assert found <= carried * B * L * H * N / 8


def test_memory_of_diagonal_scan() -> None:
    """A system with many states per channel takes a fraction of the states of all steps."""
    B, L, H, P = 4, 4096, 4, 256
    kinds = (((P,), "complex64"), ((P, H), "complex64"), ((H, P), "complex64"))

    def back(g: Any, *given: Any) -> Any:
        return jax.vjp(ssm.diagonal_scan, *given)[1](g)

    u = ((B, L, H), "float32")
    states = 8 * B * L * P
    assert temporary(ssm.diagonal_scan, *kinds, u) <= states / 8
    assert temporary(back, u, *kinds, u) <= states / 4


def test_memory_of_a_batch() -> None:
    """Rows that are wide enough are read and written where they lie: nothing as large as u."""
    B, L, P = 4, 4096, 256
    kinds = (((P,), "complex64"), ((P, P), "complex64"), ((P, P), "complex64"))
    assert temporary(ssm.diagonal_scan, *kinds, ((B, L, P), "float32")) < 4 * B * L * P / 4


@pytest.mark.parametrize(
    ("L", "kind", "reverse"),
    [(31, "float32", False), (77, "complex64", True), (1100, "complex64", False)],
)
def test_channels_step_by_step(L: int, kind: str, reverse: bool) -> None:
    """Outputs, derivatives both ways and vmap are those of the steps, which a mask makes it take.

    The mask restarts nothing. Lengths: too short for a product, a few and a rest, two blocks.
    """
    H, N = 40, 3
    rng = np.random.default_rng(L)
    values = [rng.uniform(0.5, 0.97, (H, N)), *rng.standard_normal((2, H, N))]
    values.append(rng.standard_normal((2, H, N)))
    if kind == "complex64":
        values = [x * np.exp(1j * rng.uniform(0, 1, x.shape)) for x in values]
    a, B, C, h = (x.astype(kind) for x in values)
    u = rng.standard_normal((2, L, H)).astype("float32")
    given = [jax.numpy.asarray(x) for x in (a, B, C, u, h)]
    masked = [jax.numpy.zeros((L,), bool), None]

    def run(given: Any, reset: Any) -> Any:
        y, last = ssm.diagonal_scan(*given, reset=reset, reverse=reverse, return_state=True)
        return [y, last.real, last.imag]

    def everything(given: Any, reset: Any) -> Any:
        out, pull = jax.vjp(lambda given: run(given, reset), given)
        _, moved = jax.jvp(lambda given: run(given, reset), (given,), (given,))
        one = jax.vmap(lambda u: run([*given[:3], u, None], reset)[0])(given[3])
        return jax.tree.leaves((out, pull(out), moved, one))

    steps, products = (jax.jit(everything)(given, reset) for reset in masked)
    for found, wanted in zip(products, steps, strict=True):
        off = np.linalg.norm(np.ravel(found - wanted))
        limit = float(np.finfo(np.float32).eps) * (64 + min(L, 1 / (1 - 0.97)))
        assert off <= limit * np.linalg.norm(np.ravel(wanted))


def test_known_step_sizes_inside_a_compiled_function() -> None:
    """They are looked at as they are, and no operation of JAX's is traced for it."""
    rng = np.random.default_rng(0)
    u, B, C = (jax.numpy.asarray(rng.standard_normal((5, n)), "float32") for n in (2, 3, 3))
    delta, wrong, A = (
        x * jax.numpy.ones((n, k), "float32")
        for x, n, k in ((0.125, 5, 2), (-0.125, 5, 2), (-1.0, 2, 3))
    )
    scan = jax.jit(lambda u: ssm.selective_scan(u, delta, A, B, C))
    np.testing.assert_allclose(scan(u), ssm.selective_scan(u, delta, A, B, C), rtol=1e-5)
    with pytest.raises(ssm.SSMError, match=r"delta has the value -0.125"):
        jax.jit(lambda u: ssm.selective_scan(u, wrong, A, B, C))(u)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_blocks_of_chunks(constant: bool, reverse: bool, after: bool) -> None:
    """Two blocks of four chunks of 32 steps, one of two, and 5 steps: the same as one loop."""
    from ssmcore_jax import _scan

    B, L, P = 2, 2 * 4 * 32 + 2 * 32 + 5, 3
    rng = np.random.default_rng(L)

    def draw(*shape: int) -> Any:
        z = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
        return jax.numpy.asarray((z / np.abs(z).max()).astype("complex64"))

    given = [draw(1, 1 if constant else L, P), draw(B, L, P), draw(B, 1, P)]
    if not constant:  # and restarts
        given.append(jax.numpy.asarray(rng.random((1, L, 1)) > 0.02))

    def run(sizes: tuple[int, int, int]) -> Any:
        scan = jax.jit(lambda *given: _scan._lowered(*given, **way, sizes=sizes))
        return scan(*given)

    way: dict[str, Any] = {"reverse": reverse, "after": after}
    for found, wanted in zip(run((64, 24, 32)), run((0, 1, 1)), strict=True):
        one = float(np.finfo("float32").eps)  # both are rounded once, by half of it
        many = 8 * L * float(np.finfo("float64").eps) * float(np.abs(wanted).max())
        np.testing.assert_allclose(found, wanted, rtol=one, atol=many)

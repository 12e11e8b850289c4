"""linear_scan: transitions that vary in time, constant ones, complex ones; and with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from benchmarks import exact
from benchmarks.rows.linear import draw

SIZES = [(4, 4096, 256), (1, 65536, 64)]
QUICK = [(2, 64, 16)]
DTYPES = ("float32", "complex64")


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(run: Any, size: tuple[int, ...], dtype: str) -> None:
    a, b, _ = draw(size, dtype)
    run(ssm.linear_scan, [a, b], lambda: [exact.linear_scan(a, b)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_constant(run: Any, size: tuple[int, ...], dtype: str) -> None:
    a, b, _ = draw(size, dtype)
    one = a[0, 0]
    run(ssm.linear_scan, [one, b], lambda: [exact.linear_scan(np.broadcast_to(one, b.shape), b)])


def test_reset(run: Any, size: tuple[int, ...]) -> None:
    a, b, _ = draw(size, "float32")
    reset = np.random.default_rng(0).random(size[:2]) < 0.01
    stopped = np.where(reset[..., None], 0, a)
    run(
        lambda a, b, reset: ssm.linear_scan(a, b, reset=reset),
        [a, b, reset],
        lambda: [exact.linear_scan(stopped, b)],
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward(run: Any, lib: str, size: tuple[int, ...], dtype: str) -> None:
    a, b, g = draw(size, dtype)
    conjugate = lib.startswith("torch")
    run(
        ssm.linear_scan,
        [a, b],
        lambda: exact.linear_scan_gradient(a, b, g, conjugate),
        cotangent=g,
    )

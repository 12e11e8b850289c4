"""diagonal_kernel, forward and with gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact
from benchmarks.rows.kernels import CHECKED, diagonal_values

SIZES = [(256, 32, 4096), (256, 32, 16384), (8, 32, 2**20)]
QUICK = [(8, 4, 64)]


def test_forward(run: Any, size: tuple[int, int, int]) -> None:
    length = size[-1]
    _, a, c = diagonal_values(*size)
    run(
        functools.partial(ssm.diagonal_kernel, length=length),
        [a, c],
        (lambda: [exact.diagonal_kernel(a, c, length)]) if size[0] == CHECKED else None,
    )


def test_backward(run: Any, size: tuple[int, int, int]) -> None:
    length = size[-1]
    _, a, c = diagonal_values(*size)
    run(
        functools.partial(ssm.diagonal_kernel, length=length),
        [a, c],
        cotangent=np.ones((length, size[0]), np.float32),
    )

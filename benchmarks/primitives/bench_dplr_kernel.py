"""dplr_kernel, forward and with gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact
from benchmarks.rows.kernels import CHECKED, dplr_values

SIZES = [(256, 32, 4096), (8, 32, 16384)]
QUICK = [(8, 4, 64)]


def test_forward(run: Any, size: tuple[int, int, int]) -> None:
    length = size[-1]
    values = dplr_values(*size)
    dt, Lambda, P, B, C = values
    run(
        functools.partial(ssm.dplr_kernel, length=length),
        values,
        (lambda: [exact.dplr_kernel(dt, Lambda, P, B, C, length)]) if size[0] == CHECKED else None,
    )


def test_backward(run: Any, size: tuple[int, int, int]) -> None:
    length = size[-1]
    run(
        functools.partial(ssm.dplr_kernel, length=length),
        dplr_values(*size),
        cotangent=np.ones((length, size[0]), np.float32),
    )

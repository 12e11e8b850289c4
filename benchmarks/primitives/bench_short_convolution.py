"""short_convolution with Mamba's four taps, forward and with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import ssmcore as ssm

SIZES = [(4, 4096, 256), (1, 65536, 64)]
QUICK = [(2, 64, 8)]
TAPS = 4


def output(*given: Any) -> Any:
    """Return the output alone."""
    return ssm.short_convolution(*given)[0]


def draw(size: tuple[int, ...]) -> list[Any]:
    """Return input, weight and bias."""
    rng = np.random.default_rng(0)
    shapes = (size, (TAPS, size[-1]), size[-1:])
    return [rng.standard_normal(shape, np.float32) for shape in shapes]


def exact(u: Any, weight: Any, bias: Any) -> Any:
    """Return the same in float64, tap by tap."""
    past = np.pad(u.astype(np.float64), ((0, 0), (TAPS - 1, 0), (0, 0)))
    taps = [weight[k] * past[:, k : k + u.shape[1]] for k in range(TAPS)]
    return np.sum(taps, axis=0) + bias


def test_forward(run: Any, size: tuple[int, ...]) -> None:
    values = draw(size)
    run(output, values, lambda: [exact(*values)])


def test_backward(run: Any, size: tuple[int, ...]) -> None:
    run(output, draw(size), cotangent=np.ones(size, np.float32))

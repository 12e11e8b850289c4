"""causal_convolution with a kernel as long as the sequence, forward and with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import ssmcore as ssm

SIZES = [(4, 4096, 256), (1, 65536, 64)]
QUICK = [(2, 64, 8)]


def draw(size: tuple[int, ...]) -> list[Any]:
    """Return an input and a kernel that decays."""
    _, length, channels = size
    rng = np.random.default_rng(0)
    decay = np.exp(-np.arange(length) / 500)[:, None]
    kernel = (rng.standard_normal((length, channels)) * decay).astype(np.float32)
    return [rng.standard_normal(size, np.float32), kernel]


def test_forward(run: Any, size: tuple[int, ...]) -> None:
    u, kernel = draw(size)
    wide = [x.astype(np.float64) for x in (u, kernel)]
    run(ssm.causal_convolution, [u, kernel], lambda: [ssm.causal_convolution(*wide)])


def test_backward(run: Any, size: tuple[int, ...]) -> None:
    run(ssm.causal_convolution, draw(size), cotangent=np.ones(size, np.float32))

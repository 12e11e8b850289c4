"""diagonal_scan: one system that mixes all channels (S5, LRU), and with gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

import ssmcore as ssm
from benchmarks import exact
from benchmarks.rows.diagonal import draw

SIZES = [(4, 4096, 256, 256), (1, 16384, 128, 64)]
QUICK = [(2, 64, 8, 8)]


def test_forward(run: Any, size: tuple[int, ...]) -> None:
    values = draw(size)
    run(ssm.diagonal_scan, values, lambda: [exact.diagonal_scan(*values)])


def test_backward(run: Any, size: tuple[int, ...]) -> None:
    values = draw(size)
    run(ssm.diagonal_scan, values, cotangent=np.ones_like(values[-1]))

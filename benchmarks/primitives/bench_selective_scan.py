"""selective_scan at Mamba's shapes, forward and with gradients."""

from __future__ import annotations

from typing import Any

import ssmcore as ssm
from benchmarks import exact
from benchmarks.rows.selective import draw

SIZES = [(1, 2048, 256, 16), (4, 512, 256, 16)]
QUICK = [(1, 32, 16, 4)]


def test_forward(run: Any, size: tuple[int, ...]) -> None:
    *values, _ = draw(size)
    run(ssm.selective_scan, values, lambda: [exact.selective_scan(*values)])


def test_backward(run: Any, size: tuple[int, ...]) -> None:
    drawn = draw(size)
    *values, g = drawn
    run(
        ssm.selective_scan,
        values,
        lambda: exact.selective_scan_gradient(*drawn),
        cotangent=g,
    )

"""S6 of 128 channels and 16 states: every mode, gradients, one step."""

from __future__ import annotations

from typing import Any

import ssmcore as ssm
from benchmarks.layers import calls
from benchmarks.layers.calls import QUICK as QUICK
from benchmarks.layers.calls import SIZES as SIZES

LAYER = ssm.S6(d_model=128, d_state=16)
MODES = calls.VARYING


def test_forward(run: Any, lib: str, size: tuple[int, int], mode: str) -> None:
    calls.forward(run, lib, LAYER, size, mode)


def test_backward(run: Any, size: tuple[int, int]) -> None:
    calls.backward(run, LAYER, size)


def test_step(run: Any) -> None:
    calls.step(run, LAYER, batch=8)

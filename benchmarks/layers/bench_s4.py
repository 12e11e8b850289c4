"""S4 of 64 channels and 64 states: every mode, gradients, one step."""

from __future__ import annotations

from typing import Any

import ssmcore as ssm
from benchmarks.layers import calls
from benchmarks.layers.calls import QUICK as QUICK
from benchmarks.layers.calls import SIZES as SIZES

LAYER = ssm.S4(d_model=64, d_state=64)
MODES = calls.INVARIANT


def test_forward(run: Any, lib: str, size: tuple[int, int], mode: str) -> None:
    calls.forward(run, lib, LAYER, size, mode)


def test_backward(run: Any, size: tuple[int, int]) -> None:
    calls.backward(run, LAYER, size)


def test_step(run: Any) -> None:
    calls.step(run, LAYER, batch=8)

"""No parallel primitive or mode loops over time in Python: its work grows with log L.

Counted are the bytecode instructions that the package executes on NumPy, whatever they call. A
loop over time would execute eight times as many for a sequence eight times as long; levels of a
scan and bits of a power add the same number each time. The recurrence shows that the count sees a
loop.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore_conformance.models import CASES, inputs

LENGTHS = (64, 512, 4096)
H, N = 2, 3


def instructions(work: Callable[[], object]) -> int:
    """Return how many instructions of the package ``work`` executes."""
    count = 0

    def each(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "opcode"
        return each

    def entered(frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_globals.get("__name__", "").startswith("ssmcore"):
            return None
        frame.f_trace_opcodes = True
        return each

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def scan(length: int) -> None:
    rng = np.random.default_rng(0)
    ssm.linear_scan(rng.uniform(size=(length, N)), rng.standard_normal((length, N)))


def constant_scan(length: int) -> None:
    ssm.linear_scan(np.full(N, 0.5), np.ones((length, N)), reset=np.arange(length) % 7 == 0)


def diagonal_scan(length: int) -> None:
    one = np.ones((H, N), complex)
    ssm.diagonal_scan(0.5 * one, one, one, np.ones((length, H)))


def selective_scan(length: int) -> None:
    B = np.ones((length, N))
    ssm.selective_scan(np.ones((length, H)), np.ones((length, H)), -np.ones((H, N)), B, B)


def causal_convolution(length: int) -> None:
    ssm.causal_convolution(np.ones((length, H)), np.ones((length, H)))


def short_convolution(length: int) -> None:
    ssm.short_convolution(np.ones((length, H)), np.ones((4, H)))


def diagonal_kernel(length: int) -> None:
    ssm.diagonal_kernel(np.full((H, N), 0.5), np.ones((H, N)), length)


def dplr_kernel(length: int) -> None:
    one = np.ones((H, N), complex)
    ssm.dplr_kernel(np.ones(H), -one, one[None], one, one, length)


PRIMITIVES = (
    scan,
    constant_scan,
    diagonal_scan,
    selective_scan,
    causal_convolution,
    short_convolution,
    diagonal_kernel,
    dplr_kernel,
)


def assert_logarithmic(run: Callable[[int], object]) -> None:
    run(LENGTHS[0])  # imports and caches
    few, more, most = (instructions(functools.partial(run, n)) for n in LENGTHS)
    print(f"{run}: {few}, {more}, {most} instructions at L = {LENGTHS}")
    assert few > 0
    assert most - more <= 2 * max(more - few, 0) + few / 8
    assert most < LENGTHS[-1] / LENGTHS[0] * few / 8


@pytest.mark.parametrize("primitive", PRIMITIVES)
def test_primitives(primitive: Callable[[int], None]) -> None:
    """The parallel modes of the primitives take O(log L) array operations."""
    assert_logarithmic(primitive)


@pytest.mark.parametrize(
    ("name", "mode"), [(n, m) for n, case in CASES.items() for m in (*case.modes[1:], "auto")]
)
def test_layers(name: str, mode: str) -> None:
    """The parallel modes of the layers take O(log L) array operations."""
    layer = CASES[name].layer
    params = layer.init(0, dtype="float64")
    assert_logarithmic(
        lambda n: layer(params, inputs((n, layer.d_model)), mode=mode, return_state=True)
    )


def test_the_count_sees_a_loop() -> None:
    """The count of operations sees a loop over time."""
    layer = CASES["S5"].layer
    params = layer.init(0, dtype="float64")
    with pytest.raises(AssertionError):
        assert_logarithmic(lambda n: layer(params, inputs((n, 4)), mode="recurrence"))

"""CuPy's dplr_kernel: its kernel run on the CPU against powers of the dense matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks.cushim import host
from ssmcore_conformance import oracles
from ssmcore_conformance.test_dplr_kernel import DAMPING, growth, problem
from ssmcore_conformance.tolerances import bound, steps
from ssmcore_cupy.cauchy import MOST_RANK, NEAR, THREADS, dplr_kernel

pytestmark = pytest.mark.skipif(host.missing() is not None, reason=str(host.missing()))


def check(launch: Any, given: list[Any], length: int) -> None:
    K = dplr_kernel(launch, *[*given, length])
    states = given[1].shape[-1]
    expected = oracles.dplr_kernel(*[*given, length])
    assert K.dtype == given[0].dtype
    assert K.shape == expected.shape
    tolerance = bound(K.dtype, steps(length, 2 * states), growth(given, length))
    assert np.all(np.abs(K - expected) <= tolerance)


@pytest.mark.parametrize("order", [host.FORWARD, host.BACKWARD, 7])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rank", range(MOST_RANK + 1))
def test_value(rank: int, dtype: str, order: int) -> None:
    """Of any rank that threads can hold, nodes for more than one block, poles for more than one
    round of shared memory."""
    launch = host.HostLaunch(order)
    case = {"rank": rank, "states": 3, "dtype": dtype, "width": 3}
    check(launch, problem(0, case), 2 * THREADS + 11)
    check(launch, problem(1, {**case, "states": NEAR + 3}), 20)
    assert launch.launched == ["cauchy", "cauchy"]


@pytest.mark.parametrize("damping", DAMPING)
@pytest.mark.parametrize("length", [1, 2, 3, 33])
def test_edges(length: int, damping: str) -> None:
    """Short lengths, and poles on or beside the unit circle."""
    case = {"rank": 1, "states": 2, "dtype": "float64", "damping": damping}
    check(host.HostLaunch(7), problem(0, case), length)


def test_what_the_kernel_does_not_take_runs_as_the_reference() -> None:
    """No taps, or a rank beyond what threads can hold."""
    launch = host.HostLaunch()
    case = {"rank": 1, "states": 2, "dtype": "float64"}
    assert dplr_kernel(launch, *[*problem(0, case), 0]).shape == (0, 2)
    check(launch, problem(0, {**case, "rank": MOST_RANK + 1}), 5)
    assert launch.launched == []

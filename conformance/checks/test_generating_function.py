"""The generating function that GPUs run, by sums in NumPy, against powers of the dense matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ssmcore_conformance import oracles
from ssmcore_conformance.test_dplr_kernel import DAMPING, growth, problem
from ssmcore_conformance.tolerances import bound, steps

from ssmcore.primitives import _generating_function as generating


@pytest.mark.parametrize("damping", DAMPING)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rank", [0, 1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 33, 64])
def test_value(length: int, rank: int, dtype: str, damping: str) -> None:
    """Even and odd lengths, any rank, and poles on or beside the unit circle."""
    case: dict[str, Any] = {"rank": rank, "states": 3, "dtype": dtype, "damping": damping}
    given = problem(length, case)
    K = generating.dplr_kernel(*[*given, length])
    expected = oracles.dplr_kernel(*[*given, length])
    assert K.dtype == given[0].dtype
    assert K.shape == expected.shape
    tolerance = bound(K.dtype, steps(length, 6), growth(given, length))
    assert np.all(np.abs(K - expected) <= tolerance)

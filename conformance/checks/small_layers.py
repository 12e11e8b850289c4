"""One small layer of every kind, an input for each, and the comparison of their outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from ssmcore_conformance.tolerances import EQUIVALENCE

import ssmcore as ssm

__all__ = ["EVERY", "SEVEN", "assert_close", "numbers"]

SEVEN: dict[str, ssm.Layer] = {
    "LRU": ssm.LRU(d_model=4, d_state=6),
    "LSSL": ssm.LSSL(d_model=4, d_state=6),
    "RGLRU": ssm.RGLRU(d_model=4, heads=2),
    "S4": ssm.S4(d_model=4, d_state=6),
    "S4D": ssm.S4D(d_model=4, d_state=6),
    "S5": ssm.S5(d_model=4, d_state=6),
    "S6": ssm.S6(d_model=4, d_state=6),
}
EVERY: dict[str, ssm.Layer] = SEVEN | {
    "Bidirectional": ssm.Bidirectional.of(ssm.S6(d_model=4, d_state=6)),
}


def numbers(dtype: str, shape: tuple[int, ...] = (2, 9, 4), seed: int = 0) -> Any:
    """Return standard normal numbers in NumPy."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def assert_close(name: str, got: Any, expected: Any, dtype: str) -> None:
    """Assert the bar of equivalence: a share of the output's peak, set by the requirement."""
    got, expected = ssm.to_numpy(got), ssm.to_numpy(expected)
    assert got.shape == expected.shape
    assert str(got.dtype) == str(expected.dtype) == dtype
    peak = np.max(np.abs(expected))
    assert peak > 0
    share = np.max(np.abs(got.astype("float64") - expected)) / peak
    print(f"{name}, {dtype}: error {share:.1e} of the peak, tolerance {EQUIVALENCE[dtype]:.0e}")
    assert share <= EQUIVALENCE[dtype]

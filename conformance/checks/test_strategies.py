"""The edges that the suite is meant to try are tried: every value of every axis, by what it runs.

Counted while the tests themselves run on NumPy in the profile of CI, which repeats itself.
"""

from __future__ import annotations

import importlib
from typing import Any

import hypothesis
import pytest
from ssmcore_conformance import plugin
from ssmcore_conformance.strategies import LENGTHS, MODULI, REACHED, RESETS, STEPS, WIDTHS

from ssmcore import backend

OWNERS = (
    "causal_convolution",
    "diagonal_kernel",
    "diagonal_scan",
    "dplr_kernel",
    "linear_scan",
    "selective_scan",
    "short_convolution",
)


def test_the_edges_are_these() -> None:
    """0, 1, 2, 3, primes, 2^k and 2^k +- 1; odd widths; slow, instant and lossless transitions."""
    assert {0, 1, 2, 3, 5, 7, 13, 31, 32, 33, 63, 64, 65, 127} <= set(LENGTHS)
    assert {1, 5} <= set(WIDTHS)
    assert {"0", "1 - 1e-7", "1"} <= set(MODULI)
    assert {"1e-6", "10"} <= set(STEPS)
    assert {"none", "all", "random"} == set(RESETS)


@pytest.mark.parametrize("owner", OWNERS)
def test_every_edge_is_reached(owner: str) -> None:
    module: Any = importlib.import_module(f"ssmcore_conformance.test_{owner}")
    before = hypothesis.settings.get_current_profile_name()
    plugin._load_profile("ci")
    try:
        REACHED.clear()
        for length in LENGTHS:
            module.test_value(backend.load("numpy"), lambda *_: None, length)
    finally:
        hypothesis.settings.load_profile(before)
    expected = {(owner, "length", str(n)) for n in LENGTHS}
    expected |= {(owner, axis, str(v)) for axis, values in module.AXES.items() for v in values}
    counts = {key: REACHED[key] for key in expected}
    rarest = min(counts, key=lambda key: counts[key])
    print(f"{owner}: {sum(counts.values())} values drawn, rarest {rarest}: {counts[rarest]} times")
    assert counts[rarest] > 0

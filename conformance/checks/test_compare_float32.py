"""ssmcore.verify.compare: faults that only one precision, or only one side, shows or hides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checks.small_layers import numbers
from checks.test_compare import compare, part

from ssmcore.verify.compare_judge import DIFFERENT, EQUAL, ROUNDING, UNDECIDED

U = numbers("float32", shape=(2, 200, 3))
SLOW = {"a": np.asarray([0.9, 0.8, 0.7], dtype="float32")}


def recurrence(p: Any, u: Any) -> Any:
    """Return h_t = a h_{t-1} + u_t."""
    h, steps = np.zeros_like(u[..., 0, :]), []
    for t in range(u.shape[-2]):
        h = p["a"] * h + u[..., t, :]
        steps.append(h)
    return np.stack(steps, axis=-2)


# ------------------------------------------------------------------ one side explodes


@pytest.mark.parametrize("swap", [False, True])
def test_where_an_explosion_begins_is_the_first_index(swap: bool) -> None:
    wild = {"a": np.asarray([0.9, 1.5, 0.7], dtype="float32")}
    sides = [(recurrence, SLOW), (recurrence, wild)]
    report = compare(*(reversed(sides) if swap else sides), U, gradients=False)
    assert report.first.first.index == {"batch": 0, "time": 1, "channel": 1}


def test_a_large_value_later_does_not_hide_a_wrong_one_before() -> None:
    def spoilt(p: Any, u: Any) -> Any:
        y = recurrence(p, u)
        y[1, 7, 2] += 1e-3
        y[1, 100, 2] += 1e30
        return y

    report = compare((recurrence, SLOW), (spoilt, SLOW), U, gradients=False)
    assert report.first.first.index == {"batch": 1, "time": 7, "channel": 2}


def test_a_gap_beyond_all_numbers_of_the_peak_is_finite_on_both_sides() -> None:
    tiny = U.astype("float64") * 1e-200

    def huge(u: Any) -> Any:
        y = u.copy()
        y[0, 5, 1] = 1e200
        return y

    report = compare(lambda u: u + 0.0, huge, tiny, gradients=False)
    assert report.first.first.index == {"batch": 0, "time": 5, "channel": 1}
    assert "not finite" not in report.first.reason


# ------------------------------------------------------------------ wrong in float32 alone


def halved(y: Any) -> Any:
    y[1, 50:, 2] *= 0.5
    return y


def shortened(y: Any) -> Any:
    """Return ``y`` with the 8 bits of bfloat16."""
    return (y.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


@pytest.mark.parametrize("wrong", [halved, shortened])
@pytest.mark.parametrize("swap", [False, True])
def test_a_fault_in_float32_alone_does_not_pass(wrong: Any, swap: bool) -> None:
    def faulty(p: Any, u: Any) -> Any:
        y = recurrence(p, u)
        return wrong(y) if y.dtype == np.float32 else y

    sides = [(recurrence, SLOW), (faulty, SLOW)]
    report = compare(*(reversed(sides) if swap else sides), U, gradients=False)
    y = part(report, "y")
    print(report)
    assert report.verdict == UNDECIDED
    assert not report.passed
    assert ("reference" if swap else "candidate") in y.reason
    if wrong is halved:
        assert y.first.index == {"batch": 1, "time": 50, "channel": 2}
        ours, theirs = y.first.reference, y.first.candidate
        assert theirs == (2 * ours if swap else ours / 2)  # a power of two: nothing rounds


# ------------------------------------------------------------------ what float32 cannot hold


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_a_float64_comparison_needs_no_float32_run_that_is_finite() -> None:
    params = {"a": SLOW["a"].astype("float64"), "scale": np.asarray(1e39)}

    def large(p: Any, u: Any, off: float = 0.0) -> Any:
        return recurrence(p, u) * (p["scale"] * (1.0 + off))

    u = U.astype("float64")
    assert compare((large, params), (large, params), u, gradients=False).verdict == EQUAL
    off = compare((large, params), (lambda p, u: large(p, u, 1e-9), params), u, gradients=False)
    assert off.verdict == DIFFERENT
    close = compare((large, params), (lambda p, u: large(p, u, 2e-16), params), u, gradients=False)
    assert close.verdict == ROUNDING

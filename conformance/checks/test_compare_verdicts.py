"""ssmcore.verify.compare: rounding told from real differences, block from block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks.small_layers import numbers
from checks.test_compare import changed, compare, pair, part, spoilt

from ssmcore.verify.compare_judge import DIFFERENT, EQUAL, ROUNDING

pytest.importorskip("torch", reason="torch is not installed")
import torch

# ------------------------------------------------------------------------- rounding, or real?


def logistic(swap: bool, off: float = 0.0) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return x <- r x (1 - x) twelve times from u, in one of two orders: it doubles any error."""

    def run(params: Any, u: Any) -> Any:
        r, x, steps = params["r"] * (1.0 + off), 0.3 + 0.1 * u[:, :1, :], []
        for _ in range(12):
            x = (r * x) * (1.0 - x) if not swap else r * (x - x * x)
            steps.append(x)
        return torch.cat(steps, dim=1)

    return run, {"r": torch.tensor(3.9)}


def test_amplified_rounding_is_rounding_and_a_real_difference_is_not() -> None:
    u = np.abs(np.tanh(numbers("float32", shape=(2, 12, 3))))
    same = compare(logistic(False), logistic(True), u, gradients=False)
    y = part(same, "y")
    print(same)
    modelled = 2 * 2.0**-23 * (64 + 12)
    assert y.figures["float32"].error > modelled
    assert same.verdict == ROUNDING
    assert "amplifies" in y.reason
    other = compare(logistic(False), logistic(True, off=1e-10), u, gradients=False)
    assert other.verdict == DIFFERENT


class Narrow(torch.nn.Module):
    """y = u exp(a), the exponential in float32 whatever the module's dtype."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([0.3, -0.7, 0.11, 0.2]))
        self.off = off

    def forward(self, u: Any) -> Any:
        return u * (torch.exp(self.a.float()).to(u.dtype) + self.off)


class Wide(Narrow):
    """The same in the module's dtype."""

    def forward(self, u: Any) -> Any:
        return u * torch.exp(self.a)


def test_a_side_that_works_in_float32_inside_is_named() -> None:
    u = numbers("float32") + np.float32(3.0)
    report = compare(Wide(), Narrow(), u)
    assert report.passed
    assert "candidate rounds a to float32" in part(report, "y").reason or (
        part(report, "y").verdict == EQUAL
    )
    wrong = compare(Wide(), Narrow(off=1e-4), u)
    assert wrong.verdict == DIFFERENT
    asked = compare(Wide().double(), Narrow().double(), u)
    assert asked.verdict == DIFFERENT


def test_without_float64_the_modelled_bound_decides() -> None:
    def narrow(fn: Any) -> Any:
        return lambda u: fn(u.astype("float32"))

    u = numbers("float32", shape=(2, 64, 4))
    exact = narrow(lambda u: u.cumsum(1))
    options: dict[str, Any] = {"gradients": False}
    same = compare(
        exact, narrow(lambda u: u.astype("float64").cumsum(1).astype("float32")), u, **options
    )
    assert same.verdict == ROUNDING
    assert set(part(same, "y").figures) == {"float32"}
    assert any("no run in float64" in note for note in same.notes)
    wrong = compare(exact, narrow(spoilt((1, 40, 2), 1e-2)), u, **options)
    assert wrong.first.first.index == {"batch": 1, "time": 40, "channel": 2}
    assert "outgrows rounding" in part(wrong, "y").reason


def test_float64_types_that_are_off_are_said_to_be() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    with jax.enable_x64(False):
        report = compare(pair("LRU"), pair("LRU", "jax"), numbers("float32"))
    assert report.passed
    assert any('backend.load("jax").enable_float64()' in note for note in report.notes)


def test_growth_is_that_of_the_gap() -> None:
    u = np.ones((1, 256, 1))
    t = np.arange(1.0, 257.0)[None, :, None]
    for p in (0.0, 0.5, 2.0):
        wrong: Any = lambda u, p=p: u + 1e-6 * t**p  # noqa: E731
        report = compare(lambda u: u, wrong, u, gradients=False)
        assert part(report, "y").growth == pytest.approx(p, abs=1e-3)


# --------------------------------------------------------------------------------------- stacks


def stack(*wrong: int) -> Any:
    """Return linear maps and tanh, seeded; the bias of channel 1 is off in the ``wrong`` ones."""
    torch.manual_seed(0)
    blocks: list[Any] = [
        torch.nn.Linear(4, 4),
        torch.nn.Tanh(),
        torch.nn.Linear(4, 4),
        torch.nn.Linear(4, 4),
    ]
    for index in wrong:
        blocks[index].bias.data[1] += 0.01
    return torch.nn.Sequential(*blocks)


def test_each_wrong_block_is_told_from_those_fed_by_it() -> None:
    report = compare(stack(), stack(0, 3), numbers("float32"))
    assert [block.verdict for block in report.blocks] == [DIFFERENT, EQUAL, EQUAL, DIFFERENT]
    assert [block.running.verdict for block in report.blocks] == [DIFFERENT] * 4
    assert report.first_block is report.blocks[0]
    assert report.first_running_block is report.blocks[0]
    assert "block 0 (Linear) is the first block that differs" in str(report)


@pytest.mark.parametrize("wrong", [0, 2, 3])
def test_the_first_wrong_block_and_its_channel_are_named(wrong: int) -> None:
    report = compare(stack(), stack(wrong), numbers("float32"))
    assert report.first_block.name == f"block {wrong} (Linear)"
    assert report.first_running_block.name == f"block {wrong} (Linear)"
    assert report.first.first.index == {"batch": 0, "time": 0, "channel": 1}
    assert f"outputs part after block {wrong}" in str(report)


def test_a_stack_over_two_libraries() -> None:
    names = ("S5", "LRU", "S6")
    reference = [pair(name, "numpy") for name in names]
    candidate = [pair(name) for name in names]
    same = compare(reference, candidate, numbers("float32"))
    assert same.passed, str(same)
    candidate[1] = changed(candidate[1], "D", 3, 1.01)
    report = compare(reference, candidate, numbers("float32"))
    assert report.first_block.name == "block 1 (LRU)"
    assert report.first.first.index == {"batch": 0, "time": 0, "channel": 3}
    assert [block.verdict == DIFFERENT for block in report.blocks] == [False, True, False]

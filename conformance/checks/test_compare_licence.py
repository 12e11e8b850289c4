"""ssmcore.verify.compare: how little is excused where a float64 run shows nothing finer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from checks.small_layers import EVERY, numbers
from checks.test_compare import compare, pair, part

import ssmcore as ssm
from ssmcore.verify.compare_judge import DIFFERENT, EQUAL, ROUNDING, UNDECIDED

pytest.importorskip("torch", reason="torch is not installed")
import torch

LONG = numbers("float32", shape=(2, 1024, 4))

# ------------------------------------------------------- one side in float64, the other in float32


def finer(params: dict[str, Any]) -> dict[str, Any]:
    """Return float64 parameters that float32 does not hold."""
    rng = np.random.default_rng(1)
    wide = ssm.move(params, backend="numpy", dtype="float64")
    return {name: x + 1e-4 * rng.standard_normal(x.shape) for name, x in wide.items()}


def test_a_float32_port_of_a_float64_original_is_rounding() -> None:
    layer = EVERY["LRU"]
    original = finer(layer.init(0))
    port = ssm.move(original, backend="torch", dtype="float32")
    report = compare((layer, original), (layer, port), LONG)
    assert report.verdict == ROUNDING, str(report)
    assert report.dtype == "float32"
    assert any("reference: parameters rounded to float32" in note for note in report.notes)
    port["D"][1] += 1e-6
    assert compare((layer, original), (layer, port), LONG).first.first.index["channel"] == 1


def test_a_float32_copy_of_a_float64_module_is_rounding_in_a_stack_too() -> None:
    torch.manual_seed(0)
    original = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Tanh(), torch.nn.Linear(4, 4))
    original = original.double()
    for x in original.parameters():
        x.data += 1e-4 * torch.randn(x.shape, dtype=torch.float64)

    def linear(p: Any, u: Any) -> Any:
        return (p["w"] * u[..., None, :]).sum(-1) + p["b"]

    def ported(block: Any) -> tuple[Any, dict[str, Any]]:
        return linear, {"w": block.weight.detach().float(), "b": block.bias.detach().float()}

    report = compare(original, [ported(original[0]), original[1], ported(original[2])], LONG)
    assert report.verdict == ROUNDING, str(report)
    assert [block.running.verdict for block in report.blocks] == [ROUNDING] * 3


class Scaled(torch.nn.Linear):
    """A linear map of float32 parameters and a scale in a float64 buffer."""

    scale: Any

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.register_buffer("scale", torch.full((4,), 1 / 3, dtype=torch.float64))

    def forward(self, u: Any) -> Any:
        return super().forward(u) * self.scale.to(u.dtype)


def test_a_float64_buffer_beside_float32_parameters_stays_as_it_is() -> None:
    module = Scaled()
    params = {name: x.detach() for name, x in module.named_parameters()}

    def same(p: Any, u: Any) -> Any:
        return (u @ p["weight"].T + p["bias"]) / 3

    assert compare(module, (same, params), LONG).verdict == ROUNDING


# ------------------------------------------------------------- modules that round to float32 inside


class Coarse(torch.nn.Module):
    """h_t = a h_{t-1} + u_t, y = h + D u, with a in float32 whatever the module is in."""

    def __init__(
        self, A_log: tuple[float, ...] = (0.1, 0.4, 0.7, 1.0), late: float = 0.0, wrong: float = 0.0
    ) -> None:
        super().__init__()
        self.A_log = torch.nn.Parameter(torch.tensor(A_log))
        self.D = torch.nn.Parameter(torch.ones(4))
        self.late, self.wrong = late, wrong

    def transition(self) -> Any:
        return torch.exp(-torch.exp(self.A_log.float()))

    def forward(self, u: Any) -> Any:
        a, h, steps = self.transition(), torch.zeros_like(u[:, 0]), []
        for t in range(u.shape[1]):
            h = a * h + u[:, t]
            steps.append(h)
        skip = self.D * (1 + self.wrong) - self.D.detach() * self.wrong
        y = torch.stack(steps, 1) + skip * u
        y[:, 900:, 1] *= 1 + self.late
        return y


class Fine(Coarse):
    """The same in the module's dtype, and with other roundings."""

    def transition(self) -> Any:
        return torch.exp(torch.exp(self.A_log) / -3.0) ** 3


SLOW = (-6.0, -5.0, -4.0, -3.0)


@pytest.mark.parametrize("A_log", [(0.1, 0.4, 0.7, 1.0), (0.0, 0.0, 0.0, 0.0), SLOW])
def test_a_side_that_rounds_inside_is_the_same_model(A_log: tuple[float, ...]) -> None:
    report = compare(Fine(A_log), Coarse(A_log), LONG[:1])
    assert report.verdict == ROUNDING, str(report)
    assert "candidate rounds A_log to float32" in part(report, "y").reason


def test_what_rounding_inside_does_not_explain_is_different() -> None:
    for reference in (Coarse(), Fine()):
        report = compare(reference, Coarse(late=1e-4), LONG[:1], gradients=False)
        assert report.verdict == DIFFERENT
        assert report.first.first.index == {"batch": 0, "time": 900, "channel": 1}
        assert "more than rounding A_log to float32 explains" in report.first.reason
        worst_of_float32 = 2 * 2.0**-23 * (64 + 900 + 1)
        assert part(report, "y").figures["float64"].error < worst_of_float32


@pytest.mark.parametrize("wrong", [0.005, 1e-4])
def test_a_wrong_gradient_is_not_excused_by_rounding_inside(wrong: float) -> None:
    report = compare(Coarse(), Coarse(wrong=wrong), LONG[:1])
    assert [x.name for x in report.parts if x.verdict == DIFFERENT] == ["grad.D"]
    assert part(report, "y").verdict == EQUAL


def test_a_stack_of_such_modules_is_excused_as_each_of_them_is() -> None:
    same = compare([Fine(), Fine()], [Coarse(), Coarse()], LONG[:1, :64], gradients=False)
    assert same.verdict == ROUNDING, str(same)
    assert [block.running.verdict for block in same.blocks] == [ROUNDING] * 2
    wrong = compare([Fine(), Fine()], [Coarse(), Coarse(late=1e-4)], LONG[:1], gradients=False)
    assert wrong.first_block.name == "block 1 (Fine)"
    assert wrong.first_running_block.name == "block 1 (Fine)"
    assert wrong.first.first.index["time"] == 900


@pytest.mark.parametrize("size", [0.0, 1e-9, 1e-12, 1e-13])
def test_a_parameter_too_small_to_be_seen_excuses_nothing(size: float) -> None:
    layer, params = pair("LRU", "numpy")

    def run(p: Any, u: Any) -> Any:
        return layer({k: x for k, x in p.items() if k != "bias"}, u) + p["bias"]

    def off(p: Any, u: Any) -> Any:
        return run(p, u) * (1 + 1e-6)

    params = params | {"bias": np.full(4, size, "float32")}
    assert compare((run, params), (off, params), LONG).verdict == DIFFERENT


def test_a_side_that_refuses_another_parameter_is_judged_without() -> None:
    def strict(p: Any, u: Any) -> Any:
        if (p["gain"] != 3.0).any():
            msg = "expected 3"
            raise ValueError(msg)
        return (u / 3) * p["gain"]

    given = {"gain": np.full(4, 3.0, "float32")}
    report = compare((strict, given), (lambda p, u: u * (1 + 1e-6), given), LONG)
    assert report.verdict == DIFFERENT


# ------------------------------------------------------------------------------- plain callables


def closed(change: Callable[[Any], Any] = lambda y: y) -> Callable[[Any], Any]:
    """Return a model whose float32 parameters are out of reach: it has no float64 run."""
    layer, params = pair("LRU")

    def run(u: Any) -> Any:
        return change(layer(ssm.move(params, dtype="float32"), u.to(torch.float32)))

    return run


def late(factor: float, time: int = 900) -> Callable[[Any], Any]:
    def change(y: Any) -> Any:
        y = y.clone()
        y[:, time:, 2] *= factor
        return y

    return change


def in_double() -> Callable[[Any], Any]:
    """Return the same model, computed in float64 and rounded once."""
    layer, params = pair("LRU")
    wide = ssm.move(params, dtype="float64")
    return lambda u: layer(wide, u.to(torch.float64)).to(torch.float32)


OPTIONS: dict[str, Any] = {
    "reference_library": "torch",
    "candidate_library": "torch",
    "gradients": False,
}


@pytest.mark.parametrize("double", [False, True])
def test_a_late_step_of_the_gap_is_no_rounding(double: bool) -> None:
    reference = in_double() if double else closed()
    report = compare(reference, closed(late(1 + 1e-4)), LONG, **OPTIONS)
    assert report.verdict == DIFFERENT
    assert report.first.first.index["channel"] == 2
    assert 900 <= report.first.first.index["time"] < 904
    assert "steps from" in report.first.reason


def test_in_float32_alone_roundings_of_either_sign_are_rounding_and_more_is_undecided() -> None:
    assert compare(in_double(), closed(), LONG, **OPTIONS).verdict == ROUNDING
    report = compare(closed(), closed(lambda y: y * (1 + 1e-5)), LONG, **OPTIONS)
    assert report.verdict == UNDECIDED
    assert not report.passed
    assert report.first is None
    assert "give (function, params)" in part(report, "y").reason
    assert str(report).endswith("verdict: undecided")
    assert compare(closed(), closed(lambda y: y * 1.001), LONG, **OPTIONS).verdict == DIFFERENT


def test_gradients_of_what_has_no_float64_run_have_none_either() -> None:
    layer, params = pair("LRU")

    def run(u: Any, mode: Any) -> Any:
        return layer(ssm.move(params, dtype="float32"), u.to(torch.float32), mode=mode)

    options = OPTIONS | {"gradients": True}
    report = compare(lambda u: run(u, "recurrence"), lambda u: run(u, "scan"), LONG, **options)
    assert report.verdict == ROUNDING, str(report)
    assert set(part(report, "grad.u").figures) == {"float32"}


def test_constants_in_float32_inside_a_plain_callable_are_undecided() -> None:
    near = float(np.float32(math.pi))
    report = compare(lambda u: (u / 3) * math.pi, lambda u: (u * near) / 3, LONG)
    assert report.verdict == UNDECIDED
    assert "plain callable" in part(report, "y").reason
    report = compare(lambda u: u * math.pi, lambda u: u * 3.1417, LONG)
    assert report.verdict == DIFFERENT


def test_every_channel_has_its_own_peak() -> None:
    def scaled(u: Any, last: float = 1.0) -> Any:
        return u * np.asarray([1e6, 1.0, 1.0, last], dtype=u.dtype)

    for wrong in (1.5, 1.001):
        report = compare(scaled, lambda u, wrong=wrong: scaled(u, wrong), LONG)
        assert report.verdict == DIFFERENT
        assert report.first.first.index["channel"] == 3

    def weighted(p: Any, u: Any) -> Any:
        return u * p["scale"]

    scale = np.asarray([1e8, 1.0, 1.0, 1.0], dtype="float32")
    off = scale.astype("float64") * [1.0, 1.0, 1.0, 1.0 + 1e-7]
    report = compare((weighted, {"scale": scale}), (lambda p, u: u * off, {"scale": scale}), LONG)
    assert part(report, "y").verdict == DIFFERENT
    assert part(report, "y").first.index["channel"] == 3


# ------------------------------------------------------------------- not a number; lost gradients


@pytest.mark.parametrize("params", [True, False])
def test_what_is_wrong_before_it_is_not_a_number_comes_first(params: bool) -> None:
    def broken(_: Any, u: Any) -> Any:
        y = u.copy()
        y[0, 10, 1] += 0.1
        y[1, 40, 3] = np.nan
        return y

    given = {"D": np.ones(4, "float32")}
    if params:
        report = compare((lambda p, u: u * p["D"], given), (broken, given), LONG)
    else:
        report = compare(lambda u: u, lambda u: broken(None, u), LONG)
    assert report.first.first.index == {"batch": 0, "time": 10, "channel": 1}
    assert "not finite" in report.first.reason


class Broken(Coarse):
    """Not a number at one place."""

    def forward(self, u: Any) -> Any:
        y = super().forward(u)
        y[0, 40, 3] = torch.nan
        return y


def test_what_is_excused_before_it_is_not_a_number_does_not_come_first() -> None:
    report = compare(Fine(), Broken(), LONG[:1, :64], gradients=False)
    assert report.first.first.index == {"batch": 0, "time": 40, "channel": 3}


class Stateful(Fine):
    """Returns the last state too, cut off from the gradient or not."""

    def __init__(self, detach: bool) -> None:
        super().__init__()
        self.detach = detach

    def forward(self, u: Any) -> Any:
        y = super().forward(u)
        h = y[:, -1] * self.A_log.tanh()
        return y, {"h": h.detach() if self.detach else h, "steps": u.shape[1] + 0.0 * h.detach()}


def test_the_gradient_of_a_returned_state_is_compared() -> None:
    u = LONG[:1, :64]
    assert compare(Stateful(False), Stateful(False), u).verdict == EQUAL
    report = compare(Stateful(False), Stateful(True), u)
    assert [x.verdict for x in report.parts[:3]] == [EQUAL] * 3
    assert {x.name for x in report.parts if x.verdict == DIFFERENT} >= {"grad.A_log", "grad.u"}

    def lost(p: Any, u: Any) -> Any:
        y, state = layer(p, u, return_state=True)
        return y, {name: x.detach() for name, x in state.items()}

    layer, params = pair("S5")
    report = compare((layer, params), (lost, params), u)
    assert "grad.B" in [x.name for x in report.parts if x.verdict == DIFFERENT]

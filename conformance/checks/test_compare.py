"""ssmcore.verify.compare: same models pass, wrong ports are found at the right index."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checks.small_layers import EVERY, numbers

import ssmcore as ssm
from ssmcore import SSMError, verify
from ssmcore.verify.compare_judge import DIFFERENT, EQUAL, ROUNDING, UNDECIDED

pytest.importorskip("torch", reason="torch is not installed")
import torch

compare: Any = verify.compare  # whose results are looked into without asking for None each time


def pair(name: str = "S5", library: str = "torch") -> tuple[Any, Any]:
    layer = EVERY[name]
    return layer, layer.init(0, backend=library)


def changed(side: tuple[Any, Any], name: str, index: Any, factor: float) -> tuple[Any, Any]:
    """Return the layer with one parameter's element multiplied."""
    params = ssm.move(side[1], dtype="float64")
    params[name][index] = params[name][index] * factor
    return side[0], params


def part(report: Any, name: str) -> Any:
    return next(x for x in report.parts if x.name == name)


def spoilt(place: tuple[int, int, int], by: float) -> Callable[[Any], Any]:
    """Return a running sum over time that is off at one place, and from there on in time."""

    def run(u: Any) -> Any:
        y = u.cumsum(1)
        batch, time, channel = place
        y[batch, time:, channel] += by
        return y

    return run


# --------------------------------------------------------------------------------- equal models


@pytest.mark.parametrize("name", EVERY)
def test_numpy_and_torch_are_the_same_model(name: str) -> None:
    report = compare(pair(name, "numpy"), pair(name), numbers("float32"))
    print(report)
    assert report.passed
    assert report.first is None
    found = [x.name for x in report.parts]
    expected = ["y", *(f"state.{key}" for key in EVERY[name].state_shapes())]
    assert found == expected
    assert all(set(x.figures) == {"float32", "float64"} for x in report.parts)
    assert any("numpy has no automatic differentiation" in note for note in report.notes)


class Wrapped(torch.nn.Module):
    """A module around another: no ssmcore layer to be known."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, u: Any) -> Any:
        return self.inner(u)


def test_torch_module_and_its_layer_have_the_same_gradients() -> None:
    ssm_torch: Any = pytest.importorskip("ssmcore_torch")
    inner = ssm_torch.S6(d_model=4, d_state=6)
    own = [name for name, _ in inner.named_parameters()]
    names = {f"inner.{name}": name for name in own}
    report = compare(Wrapped(inner), (inner.layer, inner.params), numbers("float32"), names=names)
    assert report.verdict == EQUAL
    gradients = [x.name for x in report.parts if x.name.startswith("grad.")]
    assert gradients == [*(f"grad.inner.{name}" for name in own), "grad.u"]
    assert all(part(report, name).figures["float64"].worst.reference for name in gradients)


def test_torch_against_jax_with_gradients() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    with jax.enable_x64(True):
        report = compare(pair("LRU", "jax"), pair("LRU"), numbers("float32"))
    print(report)
    assert report.verdict == ROUNDING
    gradients = [x for x in report.parts if x.name.startswith("grad.")]
    assert len(gradients) == 7
    for x in report.parts:
        shrunk = x.figures["float64"].error <= 1e-6 * x.figures["float32"].error
        assert shrunk or x.verdict == EQUAL


def test_complex_parameters_have_one_gradient_in_both_conventions() -> None:
    jax = pytest.importorskip("jax", reason="jax is not installed")
    c = np.asarray([1.0 + 2.0j, -0.5 + 0.25j], dtype="complex64")

    def run(params: Any, u: Any) -> Any:
        return (params["c"] * u).imag + (params["c"] ** 2 * u).real

    u = numbers("float32", shape=(3, 2))
    with jax.enable_x64(True):
        report = compare((run, {"c": torch.tensor(c)}), (run, {"c": jax.numpy.asarray(c)}), u)
    assert report.passed, str(report)
    assert part(report, "grad.c").shape == (2, 2)


def test_complex_outputs_are_compared_as_pairs() -> None:
    def run(u: Any) -> Any:
        return u + 1j * u

    def wrong(u: Any) -> Any:
        y = run(u)
        y[0, 5, 1] = y[0, 5, 1].conj()
        return y

    report = compare(run, wrong, numbers("float64"), gradients=False)
    assert report.first.first.index == {"batch": 0, "time": 5, "channel": 1, "axis 3": 1}


def test_integer_input() -> None:
    table = torch.nn.Embedding(5, 3)
    tokens = np.random.default_rng(0).integers(0, 4, (2, 7))
    tokens[1, 4] = 4
    wrong = torch.nn.Embedding(5, 3)
    wrong.load_state_dict({"weight": table.weight + torch.eye(5)[4][:, None]})
    report = compare(table, wrong, tokens)
    assert report.first.first.index == {"batch": 1, "time": 4, "channel": 0}
    assert "grad.weight" in [x.name for x in report.parts]
    assert "grad.u" not in [x.name for x in report.parts]


# ---------------------------------------------------------------------------------- wrong ports


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 3, 2), (1, 8, 3), (0, 5, 1)])
@pytest.mark.parametrize("by", [1.0, 1e-3, 1e-9])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_a_spoilt_element_is_found_where_it_is(
    place: tuple[int, int, int], by: float, library: str
) -> None:
    u = numbers("float64")
    report = compare(
        lambda u: u.cumsum(1),
        spoilt(place, by),
        u,
        reference_library=library,
        candidate_library="numpy",
        gradients=False,
    )
    assert report.verdict == DIFFERENT
    first = report.first.first
    assert first.index == dict(zip(("batch", "time", "channel"), place, strict=True))
    expected = u.cumsum(1)[place]
    assert first.reference == pytest.approx(expected, rel=1e-14)
    assert first.candidate == pytest.approx(expected + by, rel=1e-14)


def test_the_earlier_step_of_a_later_sequence_comes_first() -> None:
    def wrong(u: Any) -> Any:
        y = u.copy()
        y[0, 7, 0] += 1.0
        y[1, 2, 3] += 1.0
        return y

    report = compare(lambda u: u, wrong, numbers("float64"), gradients=False)
    assert report.first.first.index == {"batch": 1, "time": 2, "channel": 3}


def test_a_state_lost_between_chunks_is_found_at_the_boundary() -> None:
    layer, params = pair("S6")

    def chunked(p: Any, u: Any) -> Any:
        return torch.cat((layer(p, u[:, :6]), layer(p, u[:, 6:])), dim=1)

    report = compare((layer, params), (chunked, params), numbers("float32"))
    assert report.first.name == "y"
    assert report.first.first.index["time"] == 6


def test_another_discretization_is_a_real_difference() -> None:
    layer, params = pair("S6")
    other = ssm.S6(d_model=4, d_state=6, discretization="zoh")
    report = compare((layer, params), (other, params), numbers("float32"))
    assert report.verdict == DIFFERENT
    assert report.first.first.index["time"] == 0


@pytest.mark.parametrize("factor", [1.0 + 1e-6, 1.0 + 2e-7])
def test_a_difference_below_float32_is_found_by_the_float64_run(factor: float) -> None:
    side = pair("S5")
    report = compare(side, changed(side, "D", 2, factor), numbers("float32"))
    y = part(report, "y")
    assert y.figures["float32"].error <= y.figures["float32"].allowed
    assert y.verdict == DIFFERENT
    assert y.first.index == {"batch": 0, "time": 0, "channel": 2}
    assert y.reason == "the gap stays in float64"


def test_a_plain_callable_gets_no_more_than_its_precision() -> None:
    layer, params = pair("S5")
    other = changed((layer, params), "D", 2, 1.0 + 1e-6)[1]
    half = ssm.move(other, dtype="float32")
    with torch.no_grad():
        report = compare(
            (layer, params),
            lambda u: layer(ssm.move(half, dtype=ssm.backend.dtype_name(u)), u),
            numbers("float32"),
            candidate_library="torch",
            gradients=False,
        )
    assert report.verdict == UNDECIDED
    assert "plain callable" in part(report, "y").reason


def test_who_asks_for_float64_gets_float64() -> None:
    u = numbers("float64")
    report = compare(lambda u: u, lambda u: u * (1.0 + 1e-7), u)
    assert report.dtype == "float64"
    assert report.verdict == DIFFERENT


def test_a_wrong_gradient_alone_is_found() -> None:
    layer, params = pair("LRU")

    def frozen(p: Any, u: Any) -> Any:
        return layer(p | {"B": p["B"].detach()}, u)

    report = compare((layer, params), (frozen, params), numbers("float32"))
    assert part(report, "y").verdict == EQUAL
    assert [x.name for x in report.parts if x.verdict == DIFFERENT] == ["grad.B"]


# ------------------------------------------------------------------ states, names, not a number


def test_states_are_compared_whatever_their_names() -> None:
    layer, params = pair("S5")

    def pairs(p: Any, u: Any) -> Any:
        y, state = layer(p, u, return_state=True)
        return y, state["x_s5"]

    def halved(p: Any, u: Any) -> Any:
        y, state = pairs(p, u)
        return y, state * torch.tensor([1.0, 0.5], dtype=u.dtype)

    u = numbers("float32")
    assert compare((layer, params), (pairs, params), u).passed
    report = compare((layer, params), (halved, params), u)
    assert report.first.name == "state.x_s5"
    assert report.first.first.index == {"axis 0": 0, "axis 1": 0, "axis 2": 1}


def test_names_pair_parameters_and_what_has_no_pair_is_noted() -> None:
    def run(params: Any, u: Any) -> Any:
        return u * next(iter(params.values()))

    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    u = numbers("float32")
    sides = (run, {"gain": weight}), (run, {"scale": weight})
    left = compare(*sides, u)
    assert "grad.gain" not in [x.name for x in left.parts]
    assert any("reference's gain" in note and "candidate's scale" in note for note in left.notes)
    both = compare(*sides, u, names={"gain": "scale"})
    assert part(both, "grad.gain").verdict == EQUAL
    assert both.notes == []


def test_one_side_not_a_number_is_a_difference_at_its_index() -> None:
    def broken(u: Any) -> Any:
        y = u.copy()
        y[1, 4, 2] = np.nan
        return y

    report = compare(lambda u: u, broken, numbers("float32"), gradients=False)
    assert report.first.first.index == {"batch": 1, "time": 4, "channel": 2}
    assert np.isnan(report.first.first.candidate)
    assert json.loads(report.to_json())["parts"][0]["first"]["candidate"] == "nan"
    with pytest.raises(SSMError, match="not finite on either side at batch 1, time 4, channel 2"):
        compare(broken, broken, numbers("float32"), gradients=False)


def test_overflow_of_one_side_in_float32_is_a_difference() -> None:
    big = np.full((1, 3, 1), 1e20, dtype="float32")

    def early(u: Any) -> Any:
        with np.errstate(over="ignore"):
            return (u * u) / u.dtype.type(1e20)

    report = compare(lambda u: u, early, big, gradients=False)
    assert report.verdict == DIFFERENT
    assert "not finite in float32" in report.first.reason


def test_models_are_left_as_they_are() -> None:
    module = torch.nn.Linear(4, 4)
    module.weight.grad = torch.ones(4, 4)
    before = {name: x.clone() for name, x in module.state_dict().items()}
    compare(module, module, numbers("float32"))
    assert module.training
    assert torch.equal(module.weight.grad, torch.ones(4, 4))
    for name, x in module.state_dict().items():
        assert x.dtype == torch.float32
        assert torch.equal(x, before[name])


def test_the_report_holds_index_values_and_figures(tmp_path: Path) -> None:
    report = compare(lambda u: u, spoilt((1, 3, 2), 0.5), numbers("float64"), gradients=False)
    found = json.loads(report.to_json())
    assert found["verdict"] == "different"
    assert found["passed"] is False
    assert found["parts"][0]["figures"]["float64"]["error"] > 0
    report.write_json(tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == found
    lines = str(report).splitlines()
    assert lines[-1] == "verdict: different"
    assert any("parts first at batch 0, time 1, channel 0: reference" in line for line in lines)


# ------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("reference", "inputs", "options", "message"),
    [
        (3, None, {}, "reference is int 3; expected a callable of one array"),
        (EVERY["S5"], None, {}, r"reference is S5 without parameters; give \(layer, params\)"),
        ((EVERY["S5"], 3), None, {}, r"reference is a tuple of \(S5, int\)"),
        ((len, {}), None, {}, "no parameters in its dict"),
        ((EVERY["S5"], {"D": np.ones(4)}), None, {}, "parameters of another layer"),
        ([abs], None, {}, "reference is 1 blocks, candidate no stack"),
        ([], None, {}, "reference is 0 blocks"),
        (abs, [[1.0]], {}, "expected an array"),
        (abs, np.ones(3), {}, r"inputs are float64 \(3,\); expected real"),
        (abs, np.ones((2, 0)), {}, "not empty"),
        (abs, np.ones((2, 2)) * 1j, {}, "inputs are complex128"),
        (abs, np.asarray([[1.0, np.nan]]), {}, r"inputs hold nan at index \(0, 1\)"),
        (abs, None, {"reference_library": "touch"}, "did you mean 'torch'"),
        (abs, None, {"names": ["D"]}, "names is"),
        (lambda u: 1 / 0, None, {}, "reference .* raises ZeroDivisionError"),
        (lambda u: "text", None, {}, "output 'y' is str; expected an array"),
        (lambda u: u > 0, None, {}, "output 'y' has dtype bool"),
        (lambda u: (), None, {}, "the output is an empty tuple"),
        (lambda u: {"z": u}, None, {}, r"outputs are \['z'\] and \['y'\]"),
        (lambda u: u[:, :3], None, {}, r"y has shape \(2, 3, 4\) in the reference and \(2, 9, 4\)"),
        (torch.nn.Linear(4, 4).to(torch.bfloat16), None, {}, "weight has dtype bfloat16"),
    ],
)
def test_bad_input(reference: Any, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SSMError, match=message):
        compare(reference, abs, numbers("float64") if inputs is None else inputs, **options)


def test_the_other_stack_is_named_too() -> None:
    with pytest.raises(SSMError, match="reference is no stack, candidate 2 blocks"):
        compare(abs, [abs, abs], numbers("float64"))

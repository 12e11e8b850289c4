"""Bidirectional: both passes written out with flips, lengths, resets, tied parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays
from ssmcore.errors import SSMError
from ssmcore_conformance.models import CASES, condition, expected, inputs
from ssmcore_conformance.running import call, compiled
from ssmcore_conformance.tolerances import bound, check, steps

L = 13
INNER = ("S5", "S6", "RGLRU")
OPTIONS: dict[str, dict[str, Any]] = {
    "sum": {},
    "shared": {"share": "all"},
    "dynamics": {"share": "dynamics", "skip_current": True},
    "concat": {"combine": "concat"},
    "skip": {"skip_current": True},
    "all": {"share": "all", "combine": "concat", "skip_current": True},
}
Numbers = np.ndarray[Any, Any]


def both_ways(layer: ssm.Bidirectional, params: Any) -> tuple[Any, Any]:
    """The parameter set of each direction; D u is added once where the dynamics are shared."""
    if layer.share == "all":
        return params, params
    if layer.share == "nothing":
        return params["causal"], params["anticausal"]
    back = {**params["causal"], "C": params["anticausal"]["C"], "D": np.zeros(layer.d_model)}
    return params["causal"], back


def written_out(
    layer: ssm.Bidirectional, name: str, params: Any, u: Numbers, **given: Any
) -> Numbers:
    """Both passes over one sequence (L, H) without padding, by the oracle."""
    ahead, back = both_ways(layer, params)
    reset = given.get("reset", np.zeros(len(u), bool))
    begins = np.flatnonzero(reset | (np.arange(len(u)) == 0))
    parts = []
    for start, stop in zip(begins, [*begins[1:], len(u)], strict=True):
        segment = u[start:stop]
        y = expected(CASES[name], ahead, segment)[0]
        z = expected(CASES[name], back, segment[::-1])[0][::-1]
        if layer.skip_current:
            z = np.concatenate([z[1:], np.zeros_like(z[:1])])
        parts.append(y + z if layer.combine == "sum" else np.concatenate([y, z], axis=-1))
    return np.concatenate(parts)


def tolerance(layer: ssm.Bidirectional, name: str, params: Any, u: Numbers) -> Any:
    def run(p: Any, x: Numbers) -> Numbers:
        return written_out(layer, name, p, x)

    return bound("float64", steps(1), condition(run, params, u))


@pytest.mark.parametrize(
    ("name", "options"), [*(("S5", key) for key in OPTIONS), ("S6", "sum"), ("RGLRU", "all")]
)
def test_value(ssm_backend: Any, worst: Any, name: str, options: str) -> None:
    """Plain, with lengths (NaN in the padding), and with resets: segments of their own."""
    layer = ssm.Bidirectional.of(CASES[name].layer, **OPTIONS[options])
    params, u = layer.init(1, dtype="float64"), inputs((3, L, layer.d_model))
    lengths, padded = np.asarray([7, 1, L]), u.copy()
    padded[0, 7:], padded[1, 1:] = np.nan, np.nan
    reset = np.arange(L) % 5 == 2
    limit = tolerance(layer, name, params, u[2])
    run = compiled(ssm_backend.name, layer, "recurrence")
    plain, cut, short = (
        call(ssm_backend, run, params, x, None, *rest)
        for x, *rest in ((u, None, None), (u, reset, None), (padded, None, lengths))
    )
    row, library = f"Bidirectional {name}", ssm_backend.name
    for k in range(3):
        y = written_out(layer, name, params, u[k])
        check(worst, row, library, "float64", plain[k], y, limit)
        y = written_out(layer, name, params, u[k], reset=reset)
        check(worst, f"{row}: resets", library, "float64", cut[k], y, limit)
        n = lengths[k]
        y = written_out(layer, name, params, u[k, :n])
        check(worst, f"{row}: lengths", library, "float64", short[k, :n], y, limit)
        assert np.all(short[k, n:] == 0)


@pytest.mark.parametrize("name", INNER)
def test_lengths_with_resets(ssm_eager: Any, worst: Any, name: str) -> None:
    """Lengths and resets together: each segment is turned within itself."""
    layer = ssm.Bidirectional.of(CASES[name].layer, skip_current=True)
    params, u = layer.init(1, dtype="float64"), inputs((2, L, layer.d_model))
    reset, lengths = np.arange(L) % 4 == 3, np.asarray([L - 3, 6])
    limit = tolerance(layer, name, params, u[0])
    for mode in ("recurrence", "scan"):
        run = compiled(ssm_eager.name, layer, mode)
        out = call(ssm_eager, run, params, u, None, reset, lengths)
        for k, n in enumerate(lengths):
            y = written_out(layer, name, params, u[k, :n], reset=reset[:n])
            row = f"Bidirectional {name}: lengths and resets"
            check(worst, row, ssm_eager.name, "float64", out[k, :n], y, limit)
            assert np.all(out[k, n:] == 0)


@pytest.mark.parametrize("name", INNER)
def test_tied_is_symmetric_under_reversal(ssm_backend: Any, worst: Any, name: str) -> None:
    """With one parameter set, turning the input turns the output."""
    layer = ssm.Bidirectional.of(CASES[name].layer, share="all")
    params, u = layer.init(1, dtype="float64"), inputs((L, layer.d_model))
    run = compiled(ssm_backend.name, layer, "recurrence")
    y, turned = (call(ssm_backend, run, params, x) for x in (u, u[::-1].copy()))
    limit = 2 * tolerance(layer, name, params, u)
    row = f"Bidirectional {name}: reversal"
    check(worst, row, ssm_backend.name, "float64", turned[::-1], y, limit)


def test_modes_agree(ssm_eager: Any, worst: Any) -> None:
    """Recurrence, scan and convolution agree in both directions."""
    layer = ssm.Bidirectional.of(CASES["S4D"].layer)
    params, u = layer.init(1, dtype="float64"), inputs((L, layer.d_model))
    limit = tolerance(layer, "S4D", params, u)
    y = written_out(layer, "S4D", params, u)
    for mode in ("recurrence", "scan", "convolution", "auto"):
        out = call(ssm_eager, compiled(ssm_eager.name, layer, mode), params, u)
        check(worst, "Bidirectional S4D", ssm_eager.name, "float64", out, y, limit)


def test_parameters_and_groups_are_those_of_both_ways() -> None:
    """Parameters and their groups are those of both directions."""
    inner = CASES["S5"].layer
    layer = ssm.Bidirectional.of(inner)
    names = [name for name, _ in arrays.leaves(layer.init(0))]
    assert sorted(names) == sorted(n for group in layer.param_groups() for n in group.names)
    assert set(ssm.Bidirectional.of(inner, share="all").init(0)) == set(inner.init(0))
    both = layer.init(0)
    assert np.any(both["causal"]["C"] != both["anticausal"]["C"])


def test_it_cannot_stream() -> None:
    """A state is neither taken nor given: the backward pass needs the whole sequence."""
    layer = ssm.Bidirectional.of(CASES["S5"].layer)
    params, u = layer.init(0), inputs((L, 4), "float32")
    with pytest.raises(SSMError, match="there is no state"):
        layer(params, u, return_state=True)
    with pytest.raises(SSMError, match="needs the whole sequence"):
        layer(params, u, {"x": np.zeros((4, 2), np.float32)})
    with pytest.raises(SSMError, match="two systems run"):
        layer.system(params)
    varying = ssm.Bidirectional.of(CASES["S6"].layer)
    with pytest.raises(SSMError, match="varies with its input"):
        varying(varying.init(0), u, mode="convolution")
    with pytest.raises(
        SSMError, match=r"combine is 'cat'; expected one of .*did you mean 'concat'"
    ):
        ssm.Bidirectional.of(CASES["S5"].layer, combine="cat")
    with pytest.raises(SSMError, match="expected a layer with d_model"):
        ssm.Bidirectional(3, CASES["S5"].layer)

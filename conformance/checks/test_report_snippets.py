"""Snippets of the reports: inputs to the last bit, and the call that a failure is of."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from ssmcore_conformance import running, snippets
from ssmcore_conformance.models import CASES, inputs
from ssmcore_conformance.snippets import HISTORY, snippet

import ssmcore as ssm
from ssmcore import arrays, backend


@pytest.mark.parametrize("name", CASES)
def test_the_snippet_of_a_layer_gives_the_same_number(name: str) -> None:
    """With a state, resets and padding; the smallest of changes to the number is seen."""
    library, layer = backend.load("numpy"), CASES[name].layer
    params = layer.init(0, dtype="float64")
    u = inputs((2, 5, layer.d_model))
    state = layer.initial_state(params, (2,))
    run = running.compiled("numpy", layer, "recurrence", True)
    HISTORY.clear()
    reset, lengths = np.ones((2, 5), bool), np.asarray([3, 5])
    y, after = running.call(library, run, params, u, state, reset, lengths)
    states = np.concatenate([x.reshape(-1) for _, x in arrays.leaves(after)])
    for value in (y[1, 4, 2], states[states != 0][-1]):
        tiny = 2.0**-52 * abs(value)
        wrong = HISTORY.refuse("a number", value, value + 4 * tiny, 3 * tiny)
        code = snippet(wrong, [])
        assert "pytest" not in code
        with pytest.raises(AssertionError, match=re.escape(f"got {value.item()!r}")):
            exec(code, {})
        exec(snippet(HISTORY.refuse("a number", value, value, 0.0), []), {})


NUMBERS = {
    "reals": np.asarray([[0.1, -0.0, np.inf], [np.nan, -np.inf, 1e-310]]),
    "single": np.asarray([0.1, 1 / 3], np.float32),
    "complex": np.asarray([complex(-0.0, np.inf), complex(np.nan, -0.0), 0.1 - 2j]),
    "single complex": np.asarray([[0.1 - 2j]], np.complex64),
    "flags": np.asarray([True, False]),
    "integers": np.asarray([2**62, -1]),
    "scalar": np.asarray(0.1),
    "empty": np.zeros((2, 0, 3), np.float32),
    "many": np.random.default_rng(0).standard_normal((7, 50)),
    "many complex": np.exp(1j * np.arange(300)).astype(np.complex64),
    "strided": np.arange(6.0).reshape(2, 3).T,
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_inputs_are_written_out_to_the_last_bit(kind: str) -> None:
    x, seen = NUMBERS[kind], list[Any]()
    HISTORY.clear()
    given = snippets.recorded((x, True, "text", {"a": {"b": x}, "c": None}))
    HISTORY.add(snippets.Call("numpy", ssm.linear_scan, given, {}))
    error = ZeroDivisionError()
    HISTORY.calls[-1].raised = error
    code = snippet(error, []).replace("run = ssm.linear_scan", "run = lambda *x: seen.append(x)")
    exec(code, {"seen": seen})
    ((array, flag, word, tree),) = seen
    assert (flag, word, tree["c"]) == (True, "text", None)
    for got in (array, tree["a"]["b"]):
        assert got.dtype == x.dtype
        assert got.shape == x.shape
        assert got.tobytes() == x.tobytes()


def test_what_no_single_call_shows_runs_the_test_again() -> None:
    HISTORY.clear()
    code = snippet(AssertionError("two calls differ"), ["--pyargs", "a.b::test_c[d]"])
    assert "# two calls differ" in code
    assert "pytest.main([\n    '--pyargs',\n    'a.b::test_c[d]',\n])" in code
    HISTORY.add(snippets.Call("numpy", lambda x: x, (1,), {}))
    HISTORY.calls[-1].raised = error = ValueError()
    assert "pytest.main" in snippet(error, ["x"])  # a lambda cannot be written out

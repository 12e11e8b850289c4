"""Every layer on every backend: values, states, padding, resets, systems theory, dtypes, seeds."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

import ssmcore as ssm
from ssmcore import arrays, backend, oracle
from ssmcore.oracle.equations import BUILDERS, state_shape
from ssmcore_conformance.models import (
    BRIEFLY,
    CASES,
    LAYERS,
    LTI,
    Case,
    condition,
    expected,
    inputs,
    slow,
)
from ssmcore_conformance.running import call, compiled, host
from ssmcore_conformance.tolerances import EQUIVALENCE, bound, check, steps

L = 17
DTYPES = ("float32", "float64")
ROUNDINGS = steps(1)
"""On top of models.condition, which counts what each relative eps in the data does to y."""

Numbers = np.ndarray[Any, Any]


class Scenario:
    """Parameters, inputs and all options at once for a batch of three sequences."""

    def __init__(self, name: str, dtype: str) -> None:
        self.case = CASES[name]
        layer, rng = self.case.layer, np.random.default_rng(3)
        self.params = layer.init(2, dtype=dtype)
        self.u = inputs((3, L, layer.d_model), dtype)
        shapes = {k: (3, *s) for k, s in layer.state_shapes().items()}
        self.state = {k: rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}
        if "fresh" in self.state:
            self.state["fresh"][:] = 0
        self.reset = rng.uniform(size=(3, L)) < 1 / 6
        self.lengths = np.asarray([5, 0, L])
        self.options = {"reset": self.reset, "lengths": self.lengths, "state": self.state}
        self.padded = self.u.copy()
        self.padded[0, 5:], self.padded[1] = np.nan, np.nan
        plain = condition(lambda p, u: expected(self.case, p, u)[0], self.params, self.u)
        full = condition(
            lambda p, u: expected(self.case, p, u, **self.options)[0], self.params, self.u
        )
        size = max(float(np.abs(x).max(initial=1.0)) for x in self.state.values())
        self.plain, self.full = (bound(dtype, ROUNDINGS, c * size) for c in (plain, full))


scenario = functools.cache(Scenario)


def modes(library: Any, case: Case) -> tuple[str, ...]:
    """Return the modes to try: what test_equivalence ties together needs one on JAX."""
    return case.modes[:1] if library.name == "jax" else case.modes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_value(ssm_backend: Any, worst: Any, name: str, dtype: str) -> None:
    """Against the float64 oracle, from a fresh state."""
    if ssm_backend.name == "jax" and name not in LAYERS and dtype == "float32":
        pytest.skip(BRIEFLY)
    s = scenario(name, dtype)
    y_expected, state_expected = expected(s.case, s.params, s.u)
    for mode in modes(ssm_backend, s.case):
        run = compiled(ssm_backend.name, s.case.layer, mode, True)
        y, state = call(ssm_backend, run, s.params, s.u)
        assert y.dtype == np.dtype(dtype)
        check(worst, f"{name} = oracle", ssm_backend.name, dtype, y, y_expected, s.plain)
        for key, x in state_expected.items():
            assert state[key].dtype == np.dtype(dtype)
            row = f"{name} = oracle, state"
            check(worst, row, ssm_backend.name, dtype, state[key], x, s.plain)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LAYERS)
def test_slow_channels_are_exact_in_their_own_size(
    ssm_backend: Any, worst: Any, name: str, dtype: str
) -> None:
    """With |lambda| = 1 - 1e-6, where 1 - lambda cancels: the oracle, to a share of each channel.

    The bar is that between the modes: over 33 steps a rounded transition moves an output by 33 ulp.
    """
    case, length = CASES[name], 33
    params = slow(case, case.layer.init(1, dtype=dtype))
    u = inputs((length, case.layer.d_model), dtype)
    y_expected, _ = expected(case, params, u)
    limit = EQUIVALENCE[dtype] * np.abs(y_expected).max(axis=0)
    got = call(ssm_backend, compiled(ssm_backend.name, case.layer, "scan"), params, u)
    row = f"{name}, slow = oracle"
    check(worst, row, ssm_backend.name, dtype, got, y_expected, limit)


@pytest.mark.parametrize("name", [*LAYERS, "S4 rank 2", "S5 all states", "S6 zoh", "RGLRU heads"])
def test_state_reset_and_lengths_together(ssm_backend: Any, worst: Any, name: str) -> None:
    """Against the oracle; NaN in the padding reaches neither outputs nor states."""
    s = scenario(name, "float64")
    layer, zeros = s.case.layer, np.where(np.isnan(s.padded), 0.0, s.u)
    y_expected, state_expected = expected(s.case, s.params, s.u, **s.options)
    for mode in ("scan",) if ssm_backend.name == "jax" else ("recurrence", "scan"):
        run = compiled(ssm_backend.name, layer, mode, True)
        rest = (s.state, s.reset, s.lengths)
        y, state = call(ssm_backend, run, s.params, s.padded, *rest)
        row = f"{name} = oracle, all options"
        check(worst, row, ssm_backend.name, "float64", y, y_expected, s.full)
        for key, x in state_expected.items():
            check(worst, row, ssm_backend.name, "float64", state[key], x, s.full)
            np.testing.assert_array_equal(state[key][1], s.state[key][1])
        assert np.all(y[0, 5:] == 0)
        assert np.all(y[1] == 0)
        again, state_again = call(ssm_backend, run, s.params, zeros, *rest)
        np.testing.assert_array_equal(y, again)
        for key, x in state.items():
            np.testing.assert_array_equal(x, state_again[key])


@pytest.mark.parametrize("name", LTI)
def test_lengths_in_a_convolution(ssm_eager: Any, worst: Any, name: str) -> None:
    """Lengths and a state in the convolution mode, NaN in the padding."""
    s = scenario(name, "float64")
    options = {"lengths": s.lengths, "state": s.state}
    y_expected, state_expected = expected(s.case, s.params, s.u, **options)
    run = compiled(ssm_eager.name, s.case.layer, "convolution", True)
    y, state = call(ssm_eager, run, s.params, s.padded, s.state, None, s.lengths)
    row = f"{name} = oracle, all options"
    key = next(iter(state))
    for got, value in ((y, y_expected), (state[key], state_expected[key])):
        check(worst, row, ssm_eager.name, "float64", got, value, s.full)


@pytest.mark.parametrize("name", CASES)
def test_reset_is_a_fresh_start(ssm_backend: Any, worst: Any, name: str) -> None:
    """RG-LRU without first_step_reset takes the whole input anew, unlike a fresh start."""
    s = scenario(name, "float64")
    u, reset = s.u[0].copy(), np.arange(L) == 7
    if name != "RGLRU heads":
        tail, _ = expected(s.case, s.params, u[7:])
    else:
        tail = expected(s.case, s.params, u, reset=reset)[0][7:]
    for mode in ("recurrence",) if ssm_backend.name == "jax" else ("recurrence", "scan"):
        run = compiled(ssm_backend.name, s.case.layer, mode)
        y = call(ssm_backend, run, s.params, u, None, reset)
        row, tolerance = f"{name}: reset", s.plain
        check(worst, row, ssm_backend.name, "float64", y[7:], tail, tolerance)


@pytest.mark.parametrize("name", CASES)
def test_batch_is_each_sequence_alone(ssm_eager: Any, worst: Any, name: str) -> None:
    """Also with a batch shape of several axes, and with none."""
    s = scenario(name, "float64")
    for mode in s.case.modes:
        run = compiled(ssm_eager.name, s.case.layer, mode)
        y = call(ssm_eager, run, s.params, s.u[:2, None])
        assert y.shape == (2, 1, L, s.case.layer.d_output)
        for k in range(2):
            alone = call(ssm_eager, run, s.params, s.u[k])
            check(worst, f"{name}: batch", ssm_eager.name, "float64", y[k, 0], alone, s.plain)
        empty = call(ssm_eager, run, s.params, s.u[:0])
        assert empty.shape == (0, L, s.case.layer.d_output)


@pytest.mark.parametrize("name", LAYERS)
def test_steps_are_one_pass(ssm_eager: Any, worst: Any, name: str) -> None:
    """And the states handed out are not touched by later calls."""
    s = scenario(name, "float64")
    layer = s.case.layer
    whole, last = call(
        ssm_eager, functools.partial(layer, mode="recurrence", return_state=True), s.params, s.u
    )
    params, u = (arrays.tree_map(ssm_eager.from_numpy, x) for x in (s.params, s.u))
    state, outputs, handed = None, [], []
    for t in range(L):
        y, state = layer.step(params, u[:, t, :], state)
        outputs.append(backend.to_numpy(y))
        handed.append((state, {k: x.copy() for k, x in backend.to_numpy(state).items()}))
    got = np.stack(outputs, axis=1)
    check(worst, f"{name}: steps", ssm_eager.name, "float64", got, whole, s.plain)
    for given, copy in handed:
        for key, x in backend.to_numpy(given).items():
            np.testing.assert_array_equal(x, copy[key])
    for key, x in last.items():
        assert np.all(np.abs(handed[-1][1][key] - x) <= s.plain)


def test_step_on_a_compiling_backend(ssm_autodiff: Any) -> None:
    """Compiled steps, one after the other, are one pass."""
    s = scenario("S4D", "float64")
    step = ssm_autodiff.compile(lambda p, u, x: s.case.layer.step(p, u, x))
    y, state = call(ssm_autodiff, step, s.params, s.u[:, 0], s.state)
    y_expected, state_expected = expected(s.case, s.params, s.u[:, :1], state=s.state)
    assert np.all(np.abs(y - y_expected[:, 0]) <= s.full)
    assert np.all(np.abs(state["x_s4d"] - state_expected["x_s4d"]) <= s.full)


@pytest.mark.parametrize("name", LTI)
def test_linearity_and_time_invariance(ssm_eager: Any, worst: Any, name: str) -> None:
    """Time-invariant layers: sums map to sums, delays to delays."""
    s = scenario(name, "float64")
    u, v = s.u[0], s.u[1]
    delayed = np.concatenate([0 * u[:3], u[:-3]])
    for mode in s.case.modes:
        run = compiled(ssm_eager.name, s.case.layer, mode)
        y, z, both, late = (call(ssm_eager, run, s.params, x) for x in (u, v, 2 * u - v, delayed))
        tolerance = 4 * s.plain
        check(worst, f"{name}: linearity", ssm_eager.name, "float64", both, 2 * y - z, tolerance)
        row = f"{name}: time invariance"
        check(worst, row, ssm_eager.name, "float64", late[3:], y[:-3], tolerance)


@pytest.mark.parametrize("name", CASES)
def test_causality(ssm_eager: Any, worst: Any, name: str) -> None:
    """What comes later leaves the outputs so far alone, and reaches those that follow."""
    s = scenario(name, "float64")
    u = s.u[0].copy()
    u[9:] = s.u[1, 9:]
    for mode in s.case.modes:
        run = compiled(ssm_eager.name, s.case.layer, mode)
        y, z = (call(ssm_eager, run, s.params, x) for x in (s.u[0], u))
        row = f"{name}: causality"
        check(worst, row, ssm_eager.name, "float64", y[:9], z[:9], 2 * s.plain)
        assert np.all(np.abs(y[9] - z[9]) > 2 * s.plain)


HELD = {
    "S4D": ssm.S4D(4, d_state=4),
    "S5": ssm.S5(4, d_state=8),
    "S6": ssm.S6(4, d_state=3, discretization="zoh"),
}


@pytest.mark.parametrize("name", HELD)
def test_twice_the_step_is_two_steps(ssm_eager: Any, worst: Any, name: str) -> None:
    """Zero-order hold: dt_scale = 2 sees what dt_scale = 1 sees of the input held for two steps."""
    layer = HELD[name]
    coarse = type(layer)(**{**vars(layer), "dt_scale": 2.0})
    params, u = layer.init(2, dtype="float64"), inputs((L, 4))
    options = {} if name == "S5" else {"discretization": "zoh"}
    case = Case(layer, options)
    held = np.repeat(u, 2, axis=0)
    fine = call(ssm_eager, compiled(ssm_eager.name, layer, "recurrence"), params, held)[1::2]
    got = call(ssm_eager, compiled(ssm_eager.name, coarse, "recurrence"), params, u)
    growth = condition(lambda p, x: expected(case, p, x)[0], params, held)
    tolerance = bound("float64", 2 * ROUNDINGS, growth)
    check(worst, f"{name}: dt_scale", ssm_eager.name, "float64", got, fine, tolerance)


def test_half_precision_activations(ssm_backend: Any) -> None:
    """float16 or bfloat16 come back as such: the float32 run of the same inputs, rounded."""
    xp = ssm_backend.xp
    half = getattr(xp, "float16", None) if ssm_backend.name == "numpy" else None
    half = half or getattr(xp, "bfloat16", None)
    if half is None:
        if ssm_backend.test_only:
            pytest.skip(f"{ssm_backend.name} has no half precision, nor has the standard")
        pytest.fail(f"{ssm_backend.name} has no half precision: that belongs into its ledger")
    few = ("S4D", "S6", "RGLRU")  # on JAX, where each takes seconds to compile
    for name in few if ssm_backend.name == "jax" else LAYERS:
        for mode in modes(ssm_backend, LAYERS[name]):
            _rounds_once(ssm_backend, LAYERS[name].layer, mode, half)


def _rounds_once(library: Any, layer: ssm.Layer, mode: str, half: Any) -> None:
    """Assert that a run in half precision is that in float32, its outputs rounded."""
    xp, params = library.xp, arrays.tree_map(library.from_numpy, layer.init(2))
    u = xp.astype(library.from_numpy(inputs((L, layer.d_model), "float32")), half)
    run = compiled(library.name, layer, mode, True)
    y, state = run(params, u)
    assert y.dtype == half
    assert {backend.dtype_name(x) for x in state.values()} == {"float32"}
    full, state_full = run(params, xp.astype(u, xp.float32))
    rounded = xp.astype(full, half)
    np.testing.assert_array_equal(_as_float32(xp, y), _as_float32(xp, rounded))
    for key, x in state.items():
        np.testing.assert_array_equal(host(x), host(state_full[key]))


def _as_float32(xp: Any, x: Any) -> Numbers:
    return np.asarray(backend.to_numpy(xp.astype(x, xp.float32)))


@pytest.mark.parametrize("name", CASES)
def test_eigenvalues(ssm_backend: Any, worst: Any, name: str) -> None:
    """Those of the oracle, inside the unit circle. Varying ones: the transitions, in (0, 1)."""
    s = scenario(name, "float64")
    layer = s.case.layer
    if layer.time_varying:
        out = call(ssm_backend, layer.eigenvalues, s.params, s.u)
        exact = transitions(s).reshape(out.shape)
        check(worst, f"{name}: eigenvalues", ssm_backend.name, "float64", out, exact, s.plain)
        assert np.all((out > 0) & (out < 1))
        return
    got = call(ssm_backend, layer.eigenvalues, s.params)
    exact = oracle.eigenvalues(layer.name, s.params, s.case.options)
    assert np.all(np.abs(got) < 1)
    assert got.shape == exact.shape
    dense = layer.name in ("S4", "LSSL")
    got, exact = (np.sort_complex(x) for x in (got, exact)) if dense else (got, exact)
    if dense:  # the real parts of a pair may differ in the last bit: sort each by the nearest
        order = [np.argmin(np.abs(exact[:, None, :] - got[..., None]), axis=1)]
        got = np.take_along_axis(got, order[0], axis=-1)
    tolerance = bound("float64", ROUNDINGS, spectral_growth(s.case, s.params) if dense else L)
    check(worst, f"{name}: eigenvalues", ssm_backend.name, "complex128", got, exact, tolerance)


def transitions(s: Scenario) -> Numbers:
    """Return what the oracle's step multiplies a state of ones by, at every time."""
    filled = oracle.OPTIONS[s.case.layer.name] | s.case.options
    p = {name: np.asarray(x) for name, x in arrays.leaves(s.params)}
    step = BUILDERS[s.case.layer.name](p, s.u, filled, np.zeros(s.u.shape[:-1], bool))
    one = np.ones((len(s.u), *state_shape(s.case.layer.name, p)))
    return np.stack([step.advance(t, one) for t in range(L)], axis=1)


def spectral_growth(case: Case, params: Any) -> float:
    """Bauer-Fike: cond(V) |A_bar|, times the condition of the solve that makes A_bar."""
    system: Any = case.layer.system(params)
    A = system.to_dense().A
    vectors = np.linalg.eig(A)[1]
    growth = np.linalg.cond(vectors) * np.linalg.norm(A, axis=(-2, -1)) * A.shape[-1]
    return float(np.max(growth))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_same_seed_same_numbers(ssm_backend: Any, name: str, dtype: str) -> None:
    """Bit by bit on every backend; another seed gives others."""
    layer = CASES[name].layer
    usual = layer.init(5, dtype=dtype)
    drawn = layer.init(5, backend=ssm_backend.name, dtype=dtype)
    other = layer.init(6, backend=ssm_backend.name, dtype=dtype)
    leaves = [dict(arrays.leaves(backend.to_numpy(p))) for p in (usual, drawn, other)]
    assert leaves[0].keys() == leaves[1].keys()
    for key, x in leaves[0].items():
        assert x.dtype == leaves[1][key].dtype == np.dtype(dtype)
        np.testing.assert_array_equal(x, leaves[1][key])
    assert any(np.any(x != leaves[2][key]) for key, x in leaves[0].items())
    for _, x in arrays.leaves(drawn):
        assert backend.of(x).name == ssm_backend.name


@pytest.mark.parametrize("name", LAYERS)
def test_no_steps_at_all(ssm_backend: Any, name: str) -> None:
    """An empty chunk returns no output and the state as it came."""
    s = scenario(name, "float64")
    run = functools.partial(s.case.layer, return_state=True)
    y, state = call(ssm_backend, run, s.params, s.u[:, :0], s.state)
    assert y.shape == (3, 0, s.case.layer.d_output)
    for key, x in s.state.items():
        np.testing.assert_array_equal(state[key], x)
